/** `quantize(b)`: Konečný's 2^b even steps from the least value to the largest, rounded at random. */

import { finite } from "./plain.ts";
import type { SymbolQuantizer } from "./quantizer.ts";

const f32 = Math.fround;

export function quantize(bits: number): SymbolQuantizer {
  const top = 2 ** bits - 1;
  return {
    kind: "symbols",
    symbolBits: bits,
    headerNumbers: (size) => (size ? 2 : 0),
    symbolCount: (size) => size,
    encode(values, draws) {
      const symbols = new Uint8Array(values.length);
      if (!values.length) return { header: new Float32Array(0), symbols };
      let least = values[0];
      let most = values[0];
      for (const value of values) {
        if (value < least) least = value;
        if (value > most) most = value;
      }
      // Halves, so that the span of the largest values is finite.
      const step = f32(f32(most / 2 - least / 2) / f32(top / 2));
      const begin = f32(least / step);
      const u = draws.uniform(values.length);
      for (let i = 0; i < values.length && step !== 0; i++) {
        const level = Math.floor(f32(f32(f32(values[i] / step) - begin) + u[i]));
        symbols[i] = Math.min(Math.max(level, 0), top);
      }
      return { header: Float32Array.of(least, most), symbols };
    },
    decode(header, symbols) {
      const [least, most] = header;
      const levels = Float32Array.from({ length: top + 1 }, (_, s) => {
        const w = f32(s / top);
        return f32(least * f32(1 - w)) + f32(most * w);
      });
      return finite(Float32Array.from(symbols, (symbol) => levels[symbol]));
    },
  };
}
