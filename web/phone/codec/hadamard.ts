/** The Hadamard transform of a block of 2^k values, k ≤ 13, by whole numbers: docs/CODECS.md, "Arithmetic". */

import { roundEven, toWhole } from "./floats.ts";

const WHOLE_BITS = 15;
const f32 = Math.fround;

/** Return the float32 that makes H of 2^k values orthogonal. */
function rho(k: number): number {
  return k % 2 === 0 ? 2 ** (-k / 2) : 11863283 * 2 ** -24 * 2 ** (-(k - 1) / 2);
}

/** Multiply by H over the bits of the place from `low` up to, but without, `high`. */
export function butterflies(q: Int32Array | Float64Array, low: number, high: number): void {
  for (let bit = low; bit < high; bit++) {
    const half = 1 << bit;
    for (let begin = 0; begin < q.length; begin += 2 * half) {
      for (let i = begin; i < begin + half; i++) {
        const a = q[i];
        const b = q[i + half];
        q[i] = a + b;
        q[i + half] = a - b;
      }
    }
  }
}

/** Transform a block of float32 in place: T of the page. */
export function transform(block: Float32Array): void {
  const k = Math.log2(block.length);
  const q = new Int32Array(block.length);
  let unit = toWhole(block, WHOLE_BITS, q);
  const low = k - Math.floor(k / 3);
  butterflies(q, 0, low);
  if (k > 9) {
    const scale = 2 ** (k - 9);
    for (let i = 0; i < q.length; i++) q[i] = roundEven(q[i] / scale);
    unit *= scale;
  }
  butterflies(q, low, k);
  const factor = f32(unit * rho(k));
  for (let i = 0; i < q.length; i++) block[i] = q[i] * factor;
}

/** Write the transform of small whole numbers `q` times `number` to `out`; `q` is changed. */
export function transformWhole(q: Int32Array, number: number, out: Float32Array): void {
  const k = Math.log2(q.length);
  butterflies(q, 0, k);
  const factor = f32(number * f32(rho(k)));
  for (let i = 0; i < q.length; i++) out[i] = q[i] * factor;
}
