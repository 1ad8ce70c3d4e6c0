/** Pixels from 0 to 255 as a model takes them, and the bundled digits: docs/PROTOCOL.md, "Data". */

import { FaultError } from "../codec/fault.ts";
import type { Drawing } from "./description.ts";
import type { Examples } from "./training.ts";

export const SIDE = 28;
const SMALL = 8;
const LARGE = 24;
const FRAME = 2;
const RECORD = SMALL * SMALL + 1;

/** Return inputs of pixels, (examples, 28, 28). */
export function normalised(pixels: Float32Array | Uint8Array, { mean, deviation }: Drawing): Float32Array {
  return Float32Array.from(pixels, (p) => (p / 255 - mean) / deviation);
}

/** Return a shard that the server hands out: of each digit 64 values from 0 to 16, and its label. */
export function bundled(shard: Uint8Array, drawing: Drawing, most: number): Examples {
  if (!shard.length || shard.length % RECORD) throw new FaultError(`a shard of ${shard.length} bytes is no digits`);
  const count = Math.min(shard.length / RECORD, most);
  const pixels = new Float32Array(count * SIDE * SIDE);
  const targets = new Uint8Array(count);
  for (let i = 0; i < count; i++) {
    const digit = shard.subarray(i * RECORD, (i + 1) * RECORD);
    pixels.set(enlarged(digit), i * SIDE * SIDE);
    targets[i] = digit[RECORD - 1];
  }
  return { inputs: normalised(pixels, drawing), targets };
}

/** 8×8 values times 255/16, bilinearly enlarged to 24×24 (half-pixel centres, edges repeated), in a frame of zeros. */
function enlarged(small: Uint8Array): Float32Array {
  const out = new Float32Array(SIDE * SIDE);
  const at = (row: number, column: number) => (small[row * SMALL + column] * 255) / 16;
  for (let y = 0; y < LARGE; y++) {
    const [top, below, v] = between(y);
    for (let x = 0; x < LARGE; x++) {
      const [left, right, u] = between(x);
      const above = (1 - u) * at(top, left) + u * at(top, right);
      const under = (1 - u) * at(below, left) + u * at(below, right);
      out[(y + FRAME) * SIDE + x + FRAME] = (1 - v) * above + v * under;
    }
  }
  return out;
}

function between(place: number): [low: number, high: number, share: number] {
  const from = Math.max(((place + 0.5) * SMALL) / LARGE - 0.5, 0);
  const low = Math.min(Math.floor(from), SMALL - 1);
  return [low, Math.min(low + 1, SMALL - 1), from - low];
}
