/** Version 0 of a model from the run's seed: docs/PROTOCOL.md, "Initial weights". */

import { generatorOf } from "../codec/generator.ts";
import { parameters, sizeOf, type Tensor } from "../codec/layout.ts";

/** n for the bounds −1/√n and 1/√n, or the bounds themselves. */
export type Draw = number | readonly [low: number, high: number];

export function drawn(seed: bigint, draws: readonly Draw[], layout: readonly Tensor[]): Float32Array {
  const out = new Float32Array(parameters(layout));
  let begin = 0;
  layout.forEach((tensor, i) => {
    const draw = draws[i];
    const [low, high] = typeof draw === "number" ? [-1 / Math.sqrt(draw), 1 / Math.sqrt(draw)] : draw;
    const end = begin + sizeOf(tensor);
    if (low === high) {
      out.fill(low, begin, end);
    } else {
      const generator = generatorOf({ seed, round: 0, client: -1 }, `initial/${i}`);
      for (let at = begin; at < end; at++) out[at] = low + (high - low) * generator.random32();
    }
    begin = end;
  });
  return out;
}
