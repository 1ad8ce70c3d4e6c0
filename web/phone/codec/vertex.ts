/** `vertex(D)`: of each run of D values the largest alone, with its sign (Gandikota et al. 2021). */

import { FaultError } from "./fault.ts";
import { isMinus, largest, sum32 } from "./floats.ts";
import { unbiased } from "./eden.ts";
import { BLOCK, blockCount, blocks, scaled, type SymbolQuantizer } from "./quantizer.ts";

export function vertex(run: number): SymbolQuantizer {
  return {
    kind: "symbols",
    symbolBits: Math.log2(run) + 1,
    headerNumbers: blockCount,
    symbolCount: (size) => Math.ceil(size / run),
    encode(values) {
      const header = new Float32Array(blockCount(values.length));
      const symbols = new Uint8Array(Math.ceil(values.length / run));
      for (const [begin, end] of blocks(values.length)) {
        const block = values.subarray(begin, end);
        const most = largest(block);
        const y = scaled(block, most);
        // Each at its place, zeros elsewhere: where it stands decides with what it is added.
        const chosen = new Float32Array(y.length);
        for (let i = 0; i * run < y.length; i++) {
          let best = i * run;
          for (let at = best + 1; at < Math.min((i + 1) * run, y.length); at++) {
            if (Math.abs(y[at]) > Math.abs(y[best])) best = at;
          }
          chosen[best] = Math.abs(y[best]);
          symbols[begin / run + i] = best - i * run + (isMinus(block[best]) ? run : 0);
        }
        const squares = sum32(y.map((value) => value * value));
        header[begin / BLOCK] = unbiased(squares, sum32(chosen), most);
      }
      return { header, symbols };
    },
    decode(header, symbols, size) {
      const q = new Int32Array(size);
      symbols.forEach((symbol, i) => {
        const at = i * run + (symbol % run);
        if (at >= size) throw new FaultError(`a vertex at place ${at} of ${size} values`);
        q[at] = symbol >= run ? -1 : 1;
      });
      return { q, numbers: header };
    },
  };
}
