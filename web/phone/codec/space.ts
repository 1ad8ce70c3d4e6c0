/** What is trained and sent: all weights, or with `mask` one entry of each stratum of each tensor. */

import { generatorOf, positions, type RoundKey } from "./generator.ts";
import { sizeOf, type Tensor } from "./layout.ts";
import { count, type Stages } from "./spec.ts";

export interface Space {
  readonly coordinates: number;
  /** How many coordinates each tensor has. */
  readonly sizes: readonly number[];
  /** The weights' places of the coordinates, rising; null where they are all weights. */
  readonly places: Int32Array | null;
}

export function spaceOf(stages: Stages, layout: readonly Tensor[], key: RoundKey): Space {
  const whole = layout.map(sizeOf);
  const sum = (sizes: readonly number[]) => sizes.reduce((all, size) => all + size, 0);
  const share = stages.mask;
  if (share === null) return { coordinates: sum(whole), sizes: whole, places: null };
  // Tensors that travel as float32 are trained in full.
  const sizes = whole.map((size) => (size < stages.exact ? size : count(share, size)));
  const places = new Int32Array(sum(sizes));
  let begin = 0;
  let at = 0;
  whole.forEach((size, i) => {
    const all = size < stages.exact;
    const drawn = all ? null : positions(generatorOf(key, `mask/${i}`), sizes[i], size).at;
    for (let j = 0; j < sizes[i]; j++) places[at++] = begin + (drawn === null ? j : drawn[j]);
    begin += size;
  });
  return { coordinates: at, sizes, places };
}

/** Return the weights of coordinates, zero elsewhere. */
export function expand(space: Space, coordinates: Float32Array, weights: number): Float32Array {
  if (space.places === null) return coordinates;
  const out = new Float32Array(weights);
  space.places.forEach((place, i) => (out[place] = coordinates[i]));
  return out;
}

/** Return the coordinates of a vector of weights: the transpose of `expand`. */
export function gather(space: Space, weights: Float32Array): Float32Array {
  return space.places === null ? weights : Float32Array.from(space.places, (place) => weights[place]);
}
