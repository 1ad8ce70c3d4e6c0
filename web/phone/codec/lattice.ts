/** A difference of the downlink `lattice`: docs/CODECS.md, "Whole steps". */

import { FaultError } from "./fault.ts";
import { sizeOf, type Tensor } from "./layout.ts";
import { histogramEdges, RangeDecoder } from "./range_code.ts";
import { packedBytes, unpack } from "./symbols.ts";

const CLASSES = 24;
const NOT_CODED = 255;

/** A run of tensors with one histogram; without weights it is all zeros. */
interface Run {
  readonly size: number;
  readonly most: number;
  readonly weights: readonly number[];
  readonly escapes: boolean;
}

/** Return the most bytes that a difference may have. */
export function mostBytes(layout: readonly Tensor[]): number {
  const values = layout.reduce((all, tensor) => all + sizeOf(tensor), 0);
  return 1 + Math.ceil(layout.length / 2) + 66 * layout.length + 5 * values + 8;
}

/** Return what `weights` become by a difference; raises `FaultError` for bytes that are none. */
export function latticeStep(weights: Float32Array, data: Uint8Array, layout: readonly Tensor[]): Float32Array {
  if (data.length === 1 && data[0] === 0) return weights;
  if (data.length > mostBytes(layout)) throw new FaultError(`a lattice difference of ${data.length} bytes is too long`);
  let at = 0;
  const byte = () => {
    if (at >= data.length) throw new FaultError(`a lattice difference of ${data.length} bytes ends in its head`);
    return data[at++];
  };
  const top = byte() - 128;
  if (top < -100 || top > 64) throw new FaultError(`a lattice step of 2^${top}`);
  const nibbles = packedBytes(layout.length, 4);
  const smaller = unpack(Uint8Array.from({ length: nibbles }, byte), layout.length, 4);
  const runs: Run[] = [];
  for (const tensor of layout) {
    const kind = byte();
    if (kind === NOT_CODED) {
      const last = runs.pop();
      if (!last) throw new FaultError("the first tensor belongs to no run");
      runs.push({ ...last, size: last.size + sizeOf(tensor) });
      continue;
    }
    const most = kind & 127;
    const escapes = kind >= 128;
    if (most > 63) throw new FaultError(`a histogram of ${most + 1} numbers`);
    const weights = kind === 0 ? [] : Array.from({ length: most + 1 + (escapes ? 1 : 0) }, () => weightOf(byte()));
    runs.push({ size: sizeOf(tensor), most, weights, escapes });
  }
  const decoder = new RangeDecoder(data.subarray(at));
  const numbers = new Float64Array(weights.length);
  let begin = 0;
  for (const run of runs) {
    if (run.weights.length) readRun(run, decoder, numbers.subarray(begin, begin + run.size));
    begin += run.size;
  }
  return stepped(weights, numbers, layout, Array.from(smaller, (less) => 2 ** (top - less)));
}

function weightOf(byte: number): number {
  if (byte > 135) throw new FaultError(`a weight of byte ${byte}`);
  return (8 + (byte % 8)) * 2 ** Math.floor(byte / 8);
}

function readRun(run: Run, decoder: RangeDecoder, out: Float64Array): void {
  const { most, escapes } = run;
  // Symbol 2d is d ≥ 0, −2d − 1 is d < 0, and the last, if there is one, is a larger |d|.
  const weights = Array.from({ length: 2 * most + 1 }, (_, symbol) => run.weights[Math.ceil(symbol / 2)]);
  if (escapes) weights.push(run.weights[most + 1]);
  const size = weights.length;
  const total = weights.reduce((all, weight) => all + weight, 0);
  let group = 1;
  for (let g = 2; g <= 5; g++) if (size ** g <= 4096 && total ** g < 2 ** 48) group = g;
  let joint = [1];
  for (let digit = 0; digit < group; digit++) joint = joint.flatMap((each) => weights.map((weight) => each * weight));
  const edges = joint.length > 1 ? histogramEdges(joint) : null;
  const escaped: number[] = [];
  for (let begin = 0; begin < out.length; begin += group) {
    let symbol = edges === null ? 0 : decoder.symbol(edges);
    for (let digit = group - 1; digit >= 0; digit--) {
      const here = symbol % size;
      symbol = Math.floor(symbol / size);
      if (begin + digit >= out.length) {
        if (here !== 0) throw new FaultError("the last group is not filled with zeros");
      } else if (escapes && here === size - 1) {
        escaped.push(begin + digit);
      } else {
        out[begin + digit] = here % 2 ? -(here + 1) / 2 : here / 2;
      }
    }
  }
  // Within a group they were met from its last one on.
  escaped.sort((a, b) => a - b);
  const classes = escaped.map(() => decoder.uniform(CLASSES));
  for (let each = 0; each < CLASSES; each++) {
    escaped.forEach((place, i) => {
      if (classes[i] !== each) return;
      const drawn = decoder.uniform(2 ** (each + 1));
      const size = most + 2 ** each + Math.floor(drawn / 2);
      out[place] = drawn % 2 ? -size : size;
    });
  }
}

/** r(x) + Δ·d, tensor by tensor. */
function stepped(x: Float32Array, d: Float64Array, layout: readonly Tensor[], steps: number[]): Float32Array {
  const out = new Float32Array(x.length);
  let begin = 0;
  layout.forEach((tensor, t) => {
    const end = begin + sizeOf(tensor);
    const step = steps[t];
    const c = Math.fround(1.5 * 2 ** 19 * step);
    for (let i = begin; i < end; i++) {
      const rounded = Math.fround(Math.fround(x[i] + c) - c);
      out[i] = rounded + Math.fround(step * d[i]);
    }
    begin = end;
  });
  return out;
}
