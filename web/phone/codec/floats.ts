/**
 * The arithmetic of docs/CODECS.md, "Arithmetic": the same bits in any language.
 *
 * JavaScript has doubles; a float32 operation is that of the doubles, rounded by Math.fround, which is the same for
 * + − × ÷ √.
 */

const BLOCK = 65536;
const DOUBLE = new DataView(new ArrayBuffer(8));

/** Return e with 2^(e−1) ≤ x < 2^e, for a finite x above zero. */
export function exponentOf(x: number): number {
  DOUBLE.setFloat64(0, x);
  // All float32 values, and whatever is larger than them, are normal doubles.
  return ((DOUBLE.getUint32(0) >>> 20) & 0x7ff) - 1022;
}

/** Return x rounded to a whole number, a half to even; |x| < 2^51. */
export function roundEven(x: number): number {
  const BIG = 6755399441055744; // 1.5·2^52: adding it leaves no room for a fraction
  return x + BIG - BIG;
}

/** Whether the sign bit is set, be it of zero. */
export function isMinus(x: number): boolean {
  return x < 0 || Object.is(x, -0);
}

/** Return the largest magnitude, 0 of nothing. */
export function largest(values: Float32Array): number {
  let most = 0;
  for (const value of values) {
    const size = Math.abs(value);
    if (size > most) most = size;
  }
  return most;
}

/** Write `values` as whole numbers of `bits` bits to `out`; return their unit. */
export function toWhole(values: Float32Array, bits: number, out: Int32Array | Float64Array): number {
  const most = largest(values);
  const exponent = most === 0 ? -96 : Math.max(exponentOf(most), -96);
  const unit = 2 ** (exponent - bits);
  const perUnit = 2 ** (bits - exponent);
  for (let i = 0; i < values.length; i++) out[i] = roundEven(values[i] * perUnit);
  return unit;
}

/** Return the sum in the written order, each operation rounded to float32. */
export function sum32(values: Float32Array): number {
  return folded(values, new Float32Array(powerOfTwo(values.length)));
}

/** Return ⟨x, y⟩ in float64: the sums of runs of 65536 products, one after the other. */
export function product(x: Float32Array, y: Float32Array): number {
  let total = 0;
  for (let begin = 0; begin < x.length; begin += BLOCK) {
    const end = Math.min(begin + BLOCK, x.length);
    const products = new Float64Array(end - begin);
    for (let i = begin; i < end; i++) products[i - begin] = x[i] * y[i];
    total += sum64(products);
  }
  return total;
}

/** Return the sum in the written order, in float64. */
export function sum64(values: Float64Array): number {
  return folded(values, new Float64Array(powerOfTwo(values.length)));
}

/** Add in eighths, then in halves; `padded` is written over, and rounds to its own type where a number is stored. */
function folded(values: ArrayLike<number>, padded: Float32Array | Float64Array): number {
  padded.set(values);
  let size = padded.length;
  while (size >= 16) {
    const eighth = size / 8;
    for (let part = 1; part < 8; part++) {
      for (let i = 0; i < eighth; i++) padded[i] += padded[part * eighth + i];
    }
    size = eighth;
  }
  while (size > 1) {
    size /= 2;
    for (let i = 0; i < size; i++) padded[i] += padded[size + i];
  }
  return padded[0];
}

/** Return the least power of two that is at least `count`, 1 of nothing. */
export function powerOfTwo(count: number): number {
  let size = 1;
  while (size < count) size *= 2;
  return size;
}
