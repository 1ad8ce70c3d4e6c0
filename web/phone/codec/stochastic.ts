/** `stochastic(b)`: the level below or above, with the chance that makes it unbiased (Ben Basat et al. 2023). */

import { largest } from "./floats.ts";
import { bothSigns, STOCHASTIC } from "./level_table.ts";
import { BLOCK, blockCount, blocks, scaled, type SymbolQuantizer } from "./quantizer.ts";

const f32 = Math.fround;

export function stochastic(bits: number): SymbolQuantizer {
  const levels = bothSigns(STOCHASTIC[bits]);
  const top = levels[levels.length - 1];
  // One level alone has no unit of its own.
  const unit = top === 1 ? 1 : 1 / 2048;
  const points = Float32Array.from(levels, (level) => level * unit);
  return {
    kind: "symbols",
    symbolBits: bits,
    headerNumbers: blockCount,
    symbolCount: (size) => size,
    encode(values, draws) {
      const header = new Float32Array(blockCount(values.length));
      const symbols = new Uint8Array(values.length);
      const u = draws.uniform(values.length);
      for (const [begin, end] of blocks(values.length)) {
        const most = largest(values.subarray(begin, end));
        const y = scaled(values.subarray(begin, end), most);
        header[begin / BLOCK] = most < 2 ** -126 ? 0 : most * unit;
        for (let i = 0; i < y.length; i++) {
                    // The largest itself lies in the last gap, at its upper end.
          let below = 0;
          while (below < points.length - 2 && points[below + 1] <= y[i]) below++;
          const share = f32(f32(y[i] - points[below]) / f32(points[below + 1] - points[below]));
          symbols[begin + i] = u[begin + i] < share ? below + 1 : below;
        }
      }
      return { header, symbols };
    },
    decode: (header, symbols) => ({ q: Int32Array.from(symbols, (symbol) => levels[symbol]), numbers: header }),
  };
}
