import { blake2b } from "@noble/hashes/blake2.js";

/** Return what `digest` fields hold: BLAKE2b with an output of 8 bytes. */
export function digestOf(data: Uint8Array): Uint8Array {
  return blake2b(data, { dkLen: 8 });
}

/** Whether two digests are the same. */
export function same(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}
