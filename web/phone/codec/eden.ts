/** `eden(b)`: the nearest of 2^b levels of normal values, times what makes it unbiased (Vargaftik et al. 2022). */

import { largest, sum32 } from "./floats.ts";
import { bothSigns, EDEN } from "./level_table.ts";
import { BLOCK, blockCount, blocks, scaled, type SymbolQuantizer } from "./quantizer.ts";

const f32 = Math.fround;

export function eden(bits: number): SymbolQuantizer {
  const upper = EDEN[bits];
  const levels = bothSigns(upper);
  const boundaries = upper.slice(1).map((level, i) => (upper[i] + level) / 2);
  return {
    kind: "symbols",
    symbolBits: bits,
    headerNumbers: blockCount,
    symbolCount: (size) => size,
    encode(values) {
      const header = new Float32Array(blockCount(values.length));
      const symbols = new Uint8Array(values.length);
      for (const [begin, end] of blocks(values.length)) {
        const block = values.subarray(begin, end);
        const most = largest(block);
        const y = scaled(block, most);
        const squares = sum32(y.map((value) => value * value));
        const factor = f32(512 / f32(Math.sqrt(f32(squares / y.length))));
        const products = new Float32Array(y.length);
        for (let i = 0; i < y.length; i++) {
          const size = Math.abs(y[i]);
          let level = 0;
          if (squares > 0) {
            const z = f32(size * factor);
            while (level < boundaries.length && boundaries[level] < z) level++;
          }
          products[i] = size * upper[level];
          symbols[begin + i] = block[i] < 0 ? upper.length - 1 - level : upper.length + level;
        }
        header[begin / BLOCK] = unbiased(squares, sum32(products), most);
      }
      return { header, symbols };
    },
    decode: (header, symbols) => ({ q: Int32Array.from(symbols, (symbol) => levels[symbol]), numbers: header }),
  };
}

/** Return S = ‖y‖²/⟨y, q⟩ of a block that was scaled by `most`; zero where the product is. */
export function unbiased(squares: number, product: number, most: number): number {
  return product === 0 ? 0 : f32(f32(squares / product) * most);
}
