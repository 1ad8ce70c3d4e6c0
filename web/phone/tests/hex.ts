/** Bytes and float32 values as docs/vectors.json writes them: little-endian hex. */

export function bytes(hex: string): Uint8Array {
  return Uint8Array.from({ length: hex.length / 2 }, (_, i) => parseInt(hex.slice(2 * i, 2 * i + 2), 16));
}

export function hex(data: Uint8Array): string {
  return Array.from(data, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export function floats(text: string): Float32Array {
  return new Float32Array(bytes(text).buffer as ArrayBuffer);
}

/** Hex of the float32 values, where each bit counts. */
export function floatHex(values: Float32Array): string {
  return hex(new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
}
