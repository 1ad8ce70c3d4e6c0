/** `rotate` and `rotate_shared`: y = H D x of blocks, and of a last one that overlaps: docs/CODECS.md, "Values". */

import { generatorOf, signs, type RoundKey } from "./generator.ts";
import { transform, transformWhole } from "./hadamard.ts";
import { BLOCK, values, type Decoded } from "./quantizer.ts";

interface Plan {
  readonly block: number;
  readonly rest: number;
  readonly first: Int8Array;
  readonly last: Int8Array;
}

function planned(size: number, key: RoundKey, part: number): Plan {
  const block = Math.min(BLOCK, 2 ** Math.floor(Math.log2(size)));
  const rest = size % block;
  const draws = generatorOf(key, `rotate/${part}`);
  // Each draw takes whole words, so that the second begins at the next multiple of four bytes.
  return { block, rest, first: signs(draws, size - rest), last: signs(draws, rest ? block : 0) };
}

function turn(values: Float32Array, by: Int8Array): void {
  for (let i = 0; i < values.length; i++) values[i] *= by[i];
}

/** Return what is sent of `values`. */
export function rotated(kept: Float32Array, key: RoundKey, part: number): Float32Array {
  const out = Float32Array.from(kept);
  if (out.length < 2) return out;
  const { block, rest, first, last } = planned(out.length, key, part);
  if (rest) {
    const end = out.subarray(out.length - block);
    turn(end, last);
    transform(end);
  }
  for (let begin = 0; begin < out.length - rest; begin += block) {
    const here = out.subarray(begin, begin + block);
    turn(here, first.subarray(begin));
    transform(here);
  }
  return out;
}

/** Return the values of what was sent. */
export function unrotated(sent: Decoded, key: RoundKey, part: number): Float32Array {
  const out = sent instanceof Float32Array ? Float32Array.from(sent) : values(sent);
  if (out.length < 2) return out;
  const { block, rest, first, last } = planned(out.length, key, part);
  for (let begin = 0; begin < out.length - rest; begin += block) {
    const here = out.subarray(begin, begin + block);
    if (sent instanceof Float32Array) transform(here);
    else transformWhole(sent.q.slice(begin, begin + block), sent.numbers[Math.floor(begin / BLOCK)], here);
    turn(here, first.subarray(begin));
  }
  if (rest) {
    const end = out.subarray(out.length - block);
    transform(end);
    turn(end, last);
  }
  return out;
}
