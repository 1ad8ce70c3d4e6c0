/** Reads a spec, like `exact(0) | flat | subsample(1/16) | rotate | eden(1)`, and knows which stages this phone has. */

import { eden } from "./eden.ts";
import { FaultError, UnableError } from "./fault.ts";
import { bfloat16, float16, float32 } from "./plain.ts";
import { quantize } from "./quantize.ts";
import type { Quantizer } from "./quantizer.ts";
import { stochastic } from "./stochastic.ts";
import { vertex } from "./vertex.ts";

/** An exact share: p/q. */
export interface Share {
  readonly p: number;
  readonly q: number;
}

/** What a spec says. `share` of the values travels with `subsample`; `mask` is the share of entries that is trained. */
export interface Stages {
  readonly feedback: boolean;
  /** Tensors of fewer values travel as float32. */
  readonly exact: number;
  readonly flat: boolean;
  readonly mask: Share | null;
  readonly subsample: Share | null;
  readonly rotation: "own" | "shared" | null;
  readonly quantizer: Quantizer;
}

const DEFAULT_EXACT = 64;
/** In the order in which stages stand in a spec: each slot is filled once at most. */
const SLOTS = ["state", "exact", "whole", "structured", "sparse", "rotation", "quantizer", "coder"] as const;

/** Name to slot, of all that docs/CODECS.md names; and the bit of Hello's `stages`, of those that this phone has. */
const STAGES: Record<string, readonly [slot: (typeof SLOTS)[number], bit: number | null]> = {
  feedback: ["state", 0],
  exact: ["exact", 1],
  flat: ["whole", 2],
  mask: ["structured", 3],
  lowrank: ["structured", null],
  subspace: ["structured", null],
  subsample: ["sparse", 6],
  topk: ["sparse", null],
  rotate: ["rotation", 8],
  rotate_shared: ["rotation", 9],
  float32: ["quantizer", 10],
  float16: ["quantizer", 11],
  bfloat16: ["quantizer", 12],
  quantize: ["quantizer", 13],
  eden: ["quantizer", 14],
  vertex: ["quantizer", 15],
  stochastic: ["quantizer", 16],
  grid: ["quantizer", null],
  qsgd: ["quantizer", null],
  sign: ["quantizer", null],
  ternary: ["quantizer", null],
  entropy: ["coder", null],
};

/** What Hello says of this phone: a bit for each stage that it has. */
export const ABLE = Object.values(STAGES).reduce(
  (all, [, bit]) => (bit === null ? all : all + 2 ** bit),
  // The downlinks `lattice` and `fresh`.
  2 ** 22 + 2 ** 23,
);

/** Read a spec; raises `FaultError` for what is none, `UnableError` for a stage that this phone lacks. */
export function parse(spec: string): Stages {
  const found = {
    feedback: false,
    exact: DEFAULT_EXACT,
    flat: false,
    mask: null as Share | null,
    subsample: null as Share | null,
    rotation: null as Stages["rotation"],
    quantizer: float32 as Quantizer,
  };
  let last = -1;
  for (const text of spec.split("|")) {
    const match = /^\s*([a-z_0-9]+)(?:\(([0-9/]+)\))?\s*$/.exec(text);
    const known = match && Object.hasOwn(STAGES, match[1]) ? STAGES[match[1]] : null;
    if (!match || !known) throw new UnableError(`this phone knows no stage ${JSON.stringify(text.trim())}`);
    const [, name, argument] = match;
    const slot = SLOTS.indexOf(known[0]);
    if (slot <= last) throw new FaultError(`${name} is out of place in ${spec}`);
    last = slot;
    if (known[1] === null) throw new UnableError(`this phone cannot ${name}, which ${spec} needs`);
    const whole = (least: number, most: number) => {
      const value = /^[0-9]{1,15}$/.test(argument ?? "") ? Number(argument) : NaN;
      if (!(value >= least && value <= most)) throw new FaultError(`${text.trim()} is not ${least} to ${most}`);
      return value;
    };
    const plain = () => {
      if (argument !== undefined) throw new FaultError(`${name} takes no number`);
    };
    switch (name) {
      case "feedback": plain(); found.feedback = true; break;
      case "exact": found.exact = whole(0, Number.MAX_SAFE_INTEGER); break;
      case "flat": plain(); found.flat = true; break;
      case "mask": found.mask = share(argument, text); break;
      case "subsample": found.subsample = share(argument, text); break;
      case "rotate": plain(); found.rotation = "own"; break;
      case "rotate_shared": plain(); found.rotation = "shared"; break;
      case "float32": plain(); found.quantizer = float32; break;
      case "float16": plain(); found.quantizer = float16; break;
      case "bfloat16": plain(); found.quantizer = bfloat16; break;
      case "quantize": found.quantizer = quantize(whole(1, 8)); break;
      case "eden": found.quantizer = eden(whole(1, 4)); break;
      case "stochastic": found.quantizer = stochastic(whole(1, 8)); break;
      case "vertex": {
        const run = whole(2, 128);
        if (!Number.isInteger(Math.log2(run))) throw new FaultError(`${text.trim()} is no power of two`);
        found.quantizer = vertex(run);
      }
    }
  }
  if (found.mask !== null && found.flat) throw new FaultError("mask does not go with flat: it draws in each tensor");
  if (found.mask !== null && found.feedback) {
    throw new FaultError("feedback does not go with mask: a residual is of all weights");
  }
  return found;
}

function share(argument: string | undefined, text: string): Share {
  const match = /^([0-9]{1,9})(?:\/([0-9]{1,9}))?$/.exec(argument ?? "");
  const made = match ? { p: Number(match[1]), q: Number(match[2] ?? 1) } : { p: 0, q: 1 };
  if (!(made.p > 0 && made.p <= made.q)) throw new FaultError(`${text.trim()} is not above 0 and at most 1`);
  return made;
}

/** Return max(1, f·n rounded, a half to even) for n > 0. */
export function count({ p, q }: Share, size: number): number {
  const product = BigInt(p) * BigInt(size);
  const by = BigInt(q);
  let whole = product / by;
  const twice = 2n * (product % by);
  if (twice > by || (twice === by && whole % 2n === 1n)) whole += 1n;
  return size === 0 ? 0 : Math.max(1, Number(whole));
}
