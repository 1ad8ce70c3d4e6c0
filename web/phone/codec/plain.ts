/** `float32`, `float16` and `bfloat16`: the values themselves, little endian. */

import { FaultError } from "./fault.ts";
import { roundEven } from "./floats.ts";
import type { PlainQuantizer } from "./quantizer.ts";

export const float32: PlainQuantizer = {
  kind: "plain",
  valueBytes: 4,
  encode(values) {
    const view = new DataView(new ArrayBuffer(4 * values.length));
    values.forEach((value, i) => view.setFloat32(4 * i, value, true));
    return new Uint8Array(view.buffer);
  },
  decode(bytes, size) {
    const view = new DataView(bytes.buffer, bytes.byteOffset);
    return finite(Float32Array.from({ length: size }, (_, i) => view.getFloat32(4 * i, true)));
  },
};

export const float16: PlainQuantizer = {
  kind: "plain",
  valueBytes: 2,
  encode(values) {
    const view = new DataView(new ArrayBuffer(2 * values.length));
    values.forEach((value, i) => view.setUint16(2 * i, half(value), true));
    return new Uint8Array(view.buffer);
  },
  decode(bytes, size) {
    const view = new DataView(bytes.buffer, bytes.byteOffset);
    return finite(Float32Array.from({ length: size }, (_, i) => whole(view.getUint16(2 * i, true))));
  },
};

export const bfloat16: PlainQuantizer = {
  kind: "plain",
  valueBytes: 2,
  encode(values) {
    const view = new DataView(new ArrayBuffer(2 * values.length));
    const bits = new Uint32Array(Float32Array.from(values).buffer);
    // A half goes to the even one of the two.
    bits.forEach((word, i) => view.setUint16(2 * i, (word + 0x7fff + ((word >>> 16) & 1)) / 65536, true));
    return new Uint8Array(view.buffer);
  },
  decode(bytes, size) {
    const view = new DataView(bytes.buffer, bytes.byteOffset);
    const bits = Uint32Array.from({ length: size }, (_, i) => view.getUint16(2 * i, true) << 16);
    return finite(new Float32Array(bits.buffer));
  },
};

/** Return `values`, or raise `FaultError` where one is NaN or infinite. */
export function finite(values: Float32Array): Float32Array {
  // x − x is 0 for every finite x, and NaN for all others.
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i] - values[i];
  if (sum !== 0) throw new FaultError("a value is not finite");
  return values;
}

/** Return the bits of the float16 nearest to a float32, a half to even; what is too large is infinite. */
function half(value: number): number {
  const sign = value < 0 || Object.is(value, -0) ? 0x8000 : 0;
  const size = Math.abs(value);
  // From there on infinity would be nearer.
  if (size >= 65520) return sign | 0x7c00;
  if (size < 2 ** -14) return sign | roundEven(size * 2 ** 24);
  const exponent = Math.floor(Math.log2(size));
  const low = 2 ** exponent > size ? exponent - 1 : exponent;
  // Rounding up to the next power of two carries into the exponent, which is then right.
  return sign | (((low + 15) << 10) + roundEven((size / 2 ** low - 1) * 1024));
}

function whole(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 31) return NaN;
  return sign * (exponent ? (1 + fraction / 1024) * 2 ** (exponent - 15) : fraction * 2 ** -24);
}
