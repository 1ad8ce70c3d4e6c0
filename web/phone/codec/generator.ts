/** All randomness is named: docs/CODECS.md, "Randomness". numpy's PCG64, seeded by a name's BLAKE2b digest. */

import { blake2b } from "@noble/hashes/blake2.js";

import { utf8 } from "./text.ts";

const MASK_64 = (1n << 64n) - 1n;
const MULTIPLIER = 0x2360ed051fc65da44385df649fccf645n;

/** What is drawn for one (seed, round, client), the client −1 where it is nobody's own. */
export interface RoundKey {
  readonly seed: bigint;
  readonly round: number;
  readonly client: number;
}

/** Return the digest of a draw's name, 16 bytes. */
export function nameDigest(key: RoundKey, purpose: string): Uint8Array {
  const name = `${key.seed}/${key.round}/${key.client}/${purpose}`;
  return blake2b(utf8(name), { dkLen: 16 });
}

/** Return the generator of a purpose, which has given nothing yet. */
export function generatorOf(key: RoundKey, purpose: string): Generator {
  const view = new DataView(nameDigest(key, purpose).buffer);
  return new Generator([0, 4, 8, 12].map((at) => view.getUint32(at, true)));
}

export class Generator {
  private state: bigint;
  private readonly increment: bigint;
  private kept: number | null = null;

  /** `words` are the four words of the name's digest. */
  constructor(words: number[]) {
    const v = seedSequence(words);
    const join = (...parts: number[]) => parts.reduce((all, part) => (all << 32n) | BigInt(part), 0n);
    this.increment = BigInt.asUintN(128, 2n * join(v[5], v[4], v[7], v[6]) + 1n);
    this.state = BigInt.asUintN(128, this.increment + join(v[1], v[0], v[3], v[2]));
    this.step();
  }

  private step(): void {
    this.state = BigInt.asUintN(128, this.state * MULTIPLIER + this.increment);
  }

  /** Return the next 64-bit output. */
  output(): bigint {
    this.step();
    const high = this.state >> 64n;
    const mixed = high ^ (this.state & MASK_64);
    const turn = high >> 58n;
    return BigInt.asUintN(64, (mixed >> turn) | (mixed << (64n - turn)));
  }

  /** Return the next 32-bit word: the low half of an output, then its high half. */
  word(): number {
    if (this.kept !== null) {
      const word = this.kept;
      this.kept = null;
      return word;
    }
    const output = this.output();
    this.kept = Number(output >> 32n);
    return Number(output & 0xffffffffn);
  }

  /** Return `count` bytes, of whole words. */
  bytes(count: number): Uint8Array {
    const words = Math.ceil(count / 4);
    const view = new DataView(new ArrayBuffer(4 * words));
    for (let i = 0; i < words; i++) view.setUint32(4 * i, this.word(), true);
    return new Uint8Array(view.buffer, 0, count);
  }

  /** Return a double from 0 to 1, of 53 bits. */
  random(): number {
    return Number(this.output() >> 11n) * 2 ** -53;
  }

  /** Return a float32 from 0 to 1: 24 bits of a word. */
  random32(): number {
    return (this.word() >>> 8) * 2 ** -24;
  }

  /** Return `count` float32 from 0 to 1, two of each whole output; a half that is left over is gone. */
  uniform(count: number): Float32Array {
    const out = new Float32Array(count);
    for (let i = 0; i < count; i += 2) {
      const output = this.output();
      out[i] = Number((output >> 8n) & 0xffffffn) * 2 ** -24;
      if (i + 1 < count) out[i + 1] = Number(output >> 40n) * 2 ** -24;
    }
    return out;
  }

  /** Return a whole number from 0 to `bound` − 1; as even as 53 bits are. */
  below(bound: number): number {
    return Math.floor(this.random() * bound);
  }
}

/** numpy's SeedSequence: eight words of four. */
function seedSequence(words: number[]): number[] {
  let a = 0x43b0d7e5;
  const hash = (word: number) => {
    let x = word ^ a;
    a = Math.imul(a, 0x931e8875);
    x = Math.imul(x, a);
    return x ^ (x >>> 16);
  };
  const pool = words.map(hash);
  for (let i = 0; i < 4; i++) {
    for (let j = 0; j < 4; j++) {
      if (i === j) continue;
      const r = Math.imul(0xca01f9dd, pool[j]) - Math.imul(0x4973f715, hash(pool[i]));
      pool[j] = r ^ (r >>> 16);
    }
  }
  let b = 0x8b51f9dd;
  return Array.from({ length: 8 }, (_, i) => {
    let x = pool[i % 4] ^ b;
    b = Math.imul(b, 0x58f38ded);
    x = Math.imul(x, b);
    return (x ^ (x >>> 16)) >>> 0;
  });
}

/** Return `count` signs, each 1 or −1. */
export function signs(generator: Generator, count: number): Int8Array {
  const bytes = generator.bytes(Math.ceil(count / 8));
  const out = new Int8Array(count);
  for (let i = 0; i < count; i++) out[i] = (bytes[i >> 3] >> (7 - (i & 7))) & 1 ? -1 : 1;
  return out;
}

/** `kept` of `size` positions, one of each stratum, and how many values each stratum has. */
export interface Positions {
  readonly at: Int32Array;
  readonly strata: Int32Array;
}

export function positions(generator: Generator, kept: number, size: number): Positions {
  const at = new Int32Array(kept);
  const strata = new Int32Array(kept);
  // j·n is exact below 2^53.
  const edge = (j: number) => Math.floor((j * size) / kept);
  for (let j = 0; j < kept; j++) {
    const begin = edge(j);
    strata[j] = edge(j + 1) - begin;
    at[j] = begin + Math.floor(generator.random() * strata[j]);
  }
  return { at, strata };
}
