/** How bytes become what a phone holds next: docs/PROTOCOL.md, "ModelBegin" and "WholeModel". */

import { FaultError } from "../codec/fault.ts";
import { latticeStep, mostBytes } from "../codec/lattice.ts";
import { parameters, type Tensor } from "../codec/layout.ts";
import { Pipeline } from "../codec/pipeline.ts";
import { float32 } from "../codec/plain.ts";
import type { Memory } from "./memory.ts";

export type Held = Pick<Memory, "model" | "origin">;

export class Downlink {
  private readonly kind: "chain" | "lattice" | "fresh";
  private readonly pipeline: Pipeline | null;
  private readonly weights: number;

  /** Raises `FaultError` or `UnableError` for a spec that cannot be built here. */
  constructor(
    readonly spec: string,
    private readonly layout: readonly Tensor[],
    private readonly seed: bigint,
  ) {
    this.weights = parameters(layout);
    const fresh = /^fresh \| (.*)$/.exec(spec);
    this.kind = spec.startsWith("lattice(") ? "lattice" : fresh ? "fresh" : "chain";
    this.pipeline = this.kind === "lattice" ? null : new Pipeline(fresh ? fresh[1] : spec, layout);
  }

  /** Whether differences are to version 0, which a phone then keeps. */
  get keepsOrigin(): boolean {
    return this.kind !== "chain";
  }

  /** Raise `FaultError` for lengths that no server of this model has. */
  check(lengths: readonly number[]): void {
    const difference = this.pipeline?.bytes ?? mostBytes(this.layout);
    const most = this.keepsOrigin ? 4 * this.weights + difference : Math.max(4 * this.weights, difference);
    const size = lengths.reduce((all, length) => all + length, 0);
    if (size > most) throw new FaultError(`a model of ${size} bytes, where ${most} are the most`);
  }

  /** Return what is held of `version` when the parts of a way from `base` have come. */
  apply(held: Held, version: number, base: number, parts: readonly Uint8Array[]): Held {
    if (this.kind === "chain") {
      return { model: { version, weights: this.chained(held, base, version, parts) }, origin: null };
    }
    let rest = parts;
    let { origin } = held;
    if (base === -1) {
      origin = this.whole(parts[0]);
      rest = parts.slice(1);
    }
    if (origin === null) throw new FaultError(`a difference to version ${base}, where version 0 is not held`);
    const differences = base === -1 && version === 0 ? 0 : 1;
    if (rest.length !== differences) throw new FaultError(`${parts.length} parts from version ${base} to ${version}`);
    if (differences === 0) return { model: { version, weights: origin }, origin };
    let from = origin;
    if (base > 0) {
      if (this.kind === "fresh" || held.model?.version !== base) {
        throw new FaultError(`a difference to version ${base}, which is not held`);
      }
      from = held.model.weights;
    }
    return { model: { version, weights: this.step(from, version, rest[0]) }, origin };
  }

  private step(from: Float32Array, version: number, part: Uint8Array): Float32Array {
    return this.pipeline === null ? latticeStep(from, part, this.layout) : this.added(from, version, part);
  }

  private chained(held: Held, base: number, version: number, parts: readonly Uint8Array[]): Float32Array {
    if (parts.length !== version - base && !(base === -1 && parts.length === 1)) {
      throw new FaultError(`${parts.length} parts from version ${base} to ${version}`);
    }
    if (base === -1 && parts.length === 1) return this.added(new Float32Array(this.weights), 0, parts[0]);
    if (base !== -1 && held.model?.version !== base) {
      throw new FaultError(`a difference to version ${base}, which is not held`);
    }
    let weights = base === -1 ? new Float32Array(this.weights) : held.model!.weights;
    parts.forEach((part, i) => (weights = this.added(weights, base + 1 + i, part)));
    return weights;
  }

  private added(weights: Float32Array, version: number, part: Uint8Array): Float32Array {
    const change = this.pipeline!.decodeWeights(part, { seed: this.seed, round: version, client: -1 });
    return weights.map((value, i) => value + change[i]);
  }

  private whole(part: Uint8Array): Float32Array {
    if (part.length !== 4 * this.weights) {
      throw new FaultError(`version 0 in ${part.length} bytes, where ${this.weights} weights take ${4 * this.weights}`);
    }
    return float32.decode(part, this.weights);
  }
}
