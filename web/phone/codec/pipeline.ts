/** A spec for one model: coordinates in, a payload out, and back: docs/CODECS.md, "Bytes". */

import { FaultError } from "./fault.ts";
import { generatorOf, positions, type Generator, type RoundKey } from "./generator.ts";
import { parameters, sizeOf, type Tensor } from "./layout.ts";
import { finite, float32 } from "./plain.ts";
import { values, type Decoded } from "./quantizer.ts";
import { rotated, unrotated } from "./rotation.ts";
import { expand, spaceOf, type Space } from "./space.ts";
import { count, parse, type Stages } from "./spec.ts";
import { pack, packedBytes, unpack } from "./symbols.ts";

/** A run of coordinates that is coded by itself. */
interface Part {
  readonly size: number;
  readonly exact: boolean;
}

export class Pipeline {
  readonly stages: Stages;
  private readonly weights: number;

  /** Raises `FaultError` or `UnableError` for a spec that cannot be built here. */
  constructor(
    readonly spec: string,
    private readonly layout: readonly Tensor[],
  ) {
    this.stages = parse(spec);
    this.weights = parameters(layout);
  }

  space(key: RoundKey): Space {
    return spaceOf(this.stages, this.layout, key);
  }

  /** Return the payload of a vector of coordinates. */
  encode(vector: Float32Array, key: RoundKey): Uint8Array {
    const draws = generatorOf(key, "encode");
    const pieces: Uint8Array[] = [];
    let begin = 0;
    this.parts(this.space(key)).forEach((part, i) => {
      pieces.push(...this.encodePart(part, i, vector.subarray(begin, begin + part.size), key, draws));
      begin += part.size;
    });
    return joined(pieces);
  }

  /** Return the coordinates of a payload; raises `FaultError` for one that is none. */
  decode(payload: Uint8Array, key: RoundKey): Float32Array {
    const space = this.space(key);
    const out = new Float32Array(space.coordinates);
    let read = 0;
    const take = (size: number) => {
      if (read + size > payload.length) {
        throw new FaultError(`a payload of ${payload.length} bytes ends before its values, at ${read + size}`);
      }
      read += size;
      return payload.subarray(read - size, read);
    };
    let begin = 0;
    this.parts(space).forEach((part, i) => {
      out.set(this.decodePart(part, i, take, key), begin);
      begin += part.size;
    });
    if (read !== payload.length) throw new FaultError(`${payload.length - read} bytes are left over of a payload`);
    return finite(out);
  }

  /** Return the weights of a payload: an update, or a model's difference. */
  decodeWeights(payload: Uint8Array, key: RoundKey): Float32Array {
    return expand(this.space(key), this.decode(payload, key), this.weights);
  }

  /** Return the length that every payload has. */
  get bytes(): number {
    // Which entries are trained does not change how many.
    const parts = this.parts(this.space({ seed: 0n, round: 0, client: 0 }));
    return parts.reduce((all, part) => all + this.partBytes(part), 0);
  }

  private parts(space: Space): Part[] {
    const { exact, flat } = this.stages;
    if (flat) return [{ size: space.coordinates, exact: this.weights < exact }];
    return this.layout.map((tensor, i) => ({ size: space.sizes[i], exact: sizeOf(tensor) < exact }));
  }

  private kept(part: Part): number {
    return this.stages.subsample === null ? part.size : count(this.stages.subsample, part.size);
  }

  private partBytes(part: Part): number {
    const { quantizer } = this.stages;
    if (part.exact) return 4 * part.size;
    const kept = this.kept(part);
    if (quantizer.kind === "plain") return quantizer.valueBytes * kept;
    return 4 * quantizer.headerNumbers(kept) + packedBytes(quantizer.symbolCount(kept), quantizer.symbolBits);
  }

  private encodePart(part: Part, i: number, vector: Float32Array, key: RoundKey, draws: Generator): Uint8Array[] {
    const { quantizer, rotation, subsample } = this.stages;
    if (part.exact) return [float32.encode(vector)];
    let kept = vector;
    if (subsample !== null && part.size) {
      const { at } = positions(generatorOf(key, `sparse/${i}`), this.kept(part), part.size);
      kept = Float32Array.from(at, (place) => vector[place]);
    }
    if (rotation !== null) kept = rotated(kept, rotationKey(rotation, key), i);
    if (quantizer.kind === "plain") return [quantizer.encode(kept)];
    const { header, symbols } = quantizer.encode(kept, draws);
    return [float32.encode(header), pack(symbols, quantizer.symbolBits)];
  }

  private decodePart(part: Part, i: number, take: (size: number) => Uint8Array, key: RoundKey): Float32Array {
    const { quantizer, rotation, subsample } = this.stages;
    if (part.exact) return float32.decode(take(4 * part.size), part.size);
    const size = this.kept(part);
    let kept: Decoded;
    if (quantizer.kind === "plain") {
      kept = quantizer.decode(take(quantizer.valueBytes * size), size);
    } else {
      const numbers = quantizer.headerNumbers(size);
      const header = float32.decode(take(4 * numbers), numbers);
      const symbolCount = quantizer.symbolCount(size);
      const symbols = take(packedBytes(symbolCount, quantizer.symbolBits));
      kept = quantizer.decode(header, unpack(symbols, symbolCount, quantizer.symbolBits), size);
    }
    let flat: Float32Array;
    if (rotation !== null) flat = unrotated(kept, rotationKey(rotation, key), i);
    else flat = kept instanceof Float32Array ? kept : values(kept);
    if (subsample === null || !part.size) return flat;
    const { at, strata } = positions(generatorOf(key, `sparse/${i}`), size, part.size);
    const out = new Float32Array(part.size);
    at.forEach((place, j) => (out[place] = flat[j] * strata[j]));
    return out;
  }
}

function rotationKey(rotation: "own" | "shared", key: RoundKey): RoundKey {
  return rotation === "shared" ? { ...key, client: -1 } : key;
}

export function joined(pieces: readonly Uint8Array[]): Uint8Array {
  const out = new Uint8Array(pieces.reduce((all, piece) => all + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    out.set(piece, at);
    at += piece.length;
  }
  return out;
}
