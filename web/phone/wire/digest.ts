import { sha256 } from "@noble/hashes/sha2.js";

/** Return what `digest` fields hold: the first 8 bytes of SHA-256. */
export function digestOf(data: Uint8Array): Uint8Array {
  return sha256(data).slice(0, 8);
}

/** Whether two digests are the same. */
export function same(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}
