/** Symbols of b bits, one after the other, highest bit first: docs/CODECS.md, "Symbols". */

import { FaultError } from "./fault.ts";

/** Return how many bytes `count` symbols of `bits` bits take. */
export function packedBytes(count: number, bits: number): number {
  return Math.ceil((count * bits) / 8);
}

export function pack(symbols: ArrayLike<number>, bits: number): Uint8Array {
  const out = new Uint8Array(packedBytes(symbols.length, bits));
  let held = 0;
  let filled = 0;
  let at = 0;
  for (let i = 0; i < symbols.length; i++) {
    held = (held << bits) | symbols[i];
    filled += bits;
    while (filled >= 8) {
      filled -= 8;
      out[at++] = held >> filled;
      held &= (1 << filled) - 1;
    }
  }
  if (filled) out[at] = held << (8 - filled);
  return out;
}

/** Return `count` symbols; raises `FaultError` where the last byte is not filled with zeros. */
export function unpack(bytes: Uint8Array, count: number, bits: number): Uint8Array {
  const out = new Uint8Array(count);
  let held = 0;
  let filled = 0;
  let at = 0;
  for (let i = 0; i < count; i++) {
    while (filled < bits) {
      held = (held << 8) | bytes[at++];
      filled += 8;
    }
    filled -= bits;
    out[i] = held >> filled;
    held &= (1 << filled) - 1;
  }
  if (held) throw new FaultError("bits after the last symbol are not zero");
  return out;
}
