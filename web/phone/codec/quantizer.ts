/** What every quantizer is: kept values in, numbers and symbols out, and back. */

import type { Generator } from "./generator.ts";

/** A block of values for which one number of the header stands. */
export const BLOCK = 8192;

/** Small whole numbers, and for each block of 8192 the number that they are times of. */
export interface Levels {
  readonly q: Int32Array;
  readonly numbers: Float32Array;
}

export type Decoded = Float32Array | Levels;

/** Header numbers and symbols of a part's kept values. */
export interface Coded {
  readonly header: Float32Array;
  readonly symbols: Uint8Array;
}

/** Symbols of a few bits behind a header of float32 numbers. */
export interface SymbolQuantizer {
  readonly kind: "symbols";
  readonly symbolBits: number;
  /** How many numbers the header has for `size` values. */
  headerNumbers(size: number): number;
  symbolCount(size: number): number;
  encode(values: Float32Array, draws: Generator): Coded;
  decode(header: Float32Array, symbols: Uint8Array, size: number): Decoded;
}

/** The values themselves, each in a few bytes. */
export interface PlainQuantizer {
  readonly kind: "plain";
  readonly valueBytes: number;
  encode(values: Float32Array): Uint8Array;
  decode(bytes: Uint8Array, size: number): Float32Array;
}

export type Quantizer = SymbolQuantizer | PlainQuantizer;

/** Return the begin and end of each block of `size` values. */
export function* blocks(size: number): IterableIterator<[number, number]> {
  for (let begin = 0; begin < size; begin += BLOCK) yield [begin, Math.min(begin + BLOCK, size)];
}

export function blockCount(size: number): number {
  return Math.ceil(size / BLOCK);
}

/** Return the values of levels: float32 S·q. */
export function values(levels: Levels): Float32Array {
  const out = new Float32Array(levels.q.length);
  for (const [begin, end] of blocks(out.length)) {
    const number = levels.numbers[begin / BLOCK];
    for (let i = begin; i < end; i++) out[i] = number * levels.q[i];
  }
  return out;
}

/** Return a block times the reciprocal of its largest magnitude, a float32; zeros below 2⁻¹²⁶. */
export function scaled(block: Float32Array, most: number): Float32Array {
  const out = new Float32Array(block.length);
  if (most < 2 ** -126) return out;
  const reciprocal = Math.fround(1 / most);
  for (let i = 0; i < out.length; i++) out[i] = block[i] * reciprocal;
  return out;
}
