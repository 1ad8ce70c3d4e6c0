/** The range code of lattice differences: docs/CODECS.md, "Range code". 24 bits of precision, 64 of state. */

import { FaultError } from "./fault.ts";

const PRECISION = 24n;
const TOP = 2 ** 24;
const MASK_64 = (1n << 64n) - 1n;
const MASK_32 = (1n << 32n) - 1n;

/** Return the rising edges of a histogram whose weights are all above zero: one more than there are weights. */
export function histogramEdges(weights: readonly number[]): number[] {
  const total = weights.reduce((all, weight) => all + weight, 0);
  const factor = (TOP - weights.length) / total;
  let before = 0;
  const edges = weights.map((weight, i) => {
    const edge = Math.floor(before * factor) + i;
    before += weight;
    return edge;
  });
  return [...edges, TOP];
}

export class RangeDecoder {
  private low = 0n;
  private range = MASK_64;
  private point: bigint;
  private at = 0;

  constructor(private readonly code: Uint8Array) {
    this.point = (this.word() << 32n) | this.word();
  }

  /** Return the next symbol: the last whose edge is at most the quantile. */
  symbol(edges: readonly number[]): number {
    return this.next((quantile) => {
      let low = 0;
      let high = edges.length - 1;
      while (high - low > 1) {
        const middle = (low + high) >> 1;
        if (edges[middle] <= quantile) low = middle;
        else high = middle;
      }
      return [low, edges[low], edges[low + 1]];
    });
  }

  /** Return the next number below `bound`, each as likely. */
  uniform(bound: number): number {
    const step = Math.floor(TOP / bound);
    return this.next((quantile) => {
      const symbol = Math.min(Math.floor(quantile / step), bound - 1);
      return [symbol, symbol * step, symbol === bound - 1 ? TOP : (symbol + 1) * step];
    });
  }

  private next(find: (quantile: number) => readonly [symbol: number, begin: number, end: number]): number {
    const scale = this.range >> PRECISION;
    const quantile = ((this.point - this.low) & MASK_64) / scale;
    if (quantile >= 1n << PRECISION) throw new FaultError("a range code that nobody could have written");
    const [symbol, begin, end] = find(Number(quantile));
    this.low = (this.low + scale * BigInt(begin)) & MASK_64;
    this.range = scale * BigInt(end - begin);
    if (this.range <= MASK_32) {
      this.low = (this.low << 32n) & MASK_64;
      this.range <<= 32n;
      this.point = ((this.point << 32n) | this.word()) & MASK_64;
    }
    return symbol;
  }

  private word(): bigint {
    const bytes = [0, 1, 2, 3].map((i) => this.code[this.at + i] ?? 0);
    this.at += 4;
    return BigInt(bytes[0]) + BigInt(bytes[1]) * 256n + BigInt(bytes[2]) * 65536n + BigInt(bytes[3]) * 16777216n;
  }
}
