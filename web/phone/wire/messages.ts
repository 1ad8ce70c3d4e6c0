/** The messages of docs/PROTOCOL.md: arrays of msgpack, whose first element is the message's number. */

import { encode } from "@msgpack/msgpack";

import { FaultError } from "../codec/fault.ts";
import type { Draw } from "../learning/initial.ts";
import { Fields } from "./fields.ts";

export const PROTOCOL = 3;

export type Setting = boolean | number | string;
export type Settings = ReadonlyMap<string, Setting>;

// What a phone says.

export interface Hello {
  readonly kind: "Hello";
  readonly name: string;
  readonly shard: number;
  readonly modelDigest: Uint8Array;
  readonly run: string;
  readonly heldVersion: number;
  readonly pendingRound: number;
  readonly link: string;
  readonly partialDigest: Uint8Array;
  readonly partialBytes: number;
  readonly stages: number;
}

export interface UpdateBegin {
  readonly kind: "UpdateBegin";
  readonly round: number;
  readonly size: number;
  readonly digest: Uint8Array;
  readonly examples: number;
  readonly offset: number;
  readonly data: Uint8Array;
}

export interface UpdateChunk {
  readonly kind: "UpdateChunk";
  readonly offset: number;
  readonly data: Uint8Array;
}

export interface WholeUpdate {
  readonly kind: "WholeUpdate";
  readonly round: number;
  readonly data: Uint8Array;
  /** 0 stands for `Welcome.maxExamples`. */
  readonly examples: number;
}

export type FromPhone = Hello | UpdateBegin | UpdateChunk | WholeUpdate;

// What a server says.

export interface TensorEntry {
  readonly name: string;
  readonly shape: readonly number[];
  /** Of a tensor that does not travel; else empty. */
  readonly digest: Uint8Array;
}

export interface Training {
  readonly epochs: number;
  readonly batchSize: number;
  readonly lr: number;
  readonly lrDecay: number;
  readonly momentum: number;
  readonly weightDecay: number;
  readonly proxMu: number;
  readonly set: Settings;
}

export interface Welcome {
  readonly kind: "Welcome";
  readonly run: string;
  readonly problem: string;
  readonly partition: string;
  readonly shard: number;
  readonly shards: number;
  readonly seed: bigint;
  readonly maxExamples: number;
  readonly heartbeatS: number;
  readonly uplink: string;
  readonly downlink: string;
  readonly training: Training;
  readonly initialDigest: Uint8Array;
  readonly initial: readonly Draw[];
  readonly tensors: readonly TensorEntry[];
  readonly chunkBytes: number;
  readonly masked: boolean;
  readonly clip: number;
  /** Of sums under masks: who rounds, and what noise phones add. */
  readonly bounded: boolean;
  readonly noise: number;
  readonly colluding: number;
}

export interface Task {
  readonly kind: "Task";
  readonly round: number;
  readonly version: number;
  readonly changes: ReadonlyMap<string, unknown>;
}

export interface ModelBegin {
  readonly kind: "ModelBegin";
  readonly version: number;
  readonly base: number;
  readonly spec: string;
  readonly lengths: readonly number[];
  readonly digest: Uint8Array;
  readonly offset: number;
  readonly data: Uint8Array;
}

export interface ModelChunk {
  readonly kind: "ModelChunk";
  readonly offset: number;
  readonly data: Uint8Array;
}

export interface WholeModel {
  readonly kind: "WholeModel";
  readonly version: number;
  readonly data: Uint8Array;
  readonly base: number;
}

export interface Ack {
  readonly kind: "Ack";
  readonly round: number;
  readonly offset: number;
}

export interface Accepted {
  readonly kind: "Accepted";
  readonly round: number;
}

export interface Cancel {
  readonly kind: "Cancel";
  readonly round: number;
}

export interface Finish {
  readonly kind: "Finish";
  readonly reason: string;
}

export type FromServer =
  | Welcome
  | Task
  | ModelBegin
  | ModelChunk
  | WholeModel
  | Ack
  | Accepted
  | Cancel
  | Finish;

const EMPTY = new Uint8Array(0);

/** Return a message as one frame; last fields are left out where they have the values that the page names. */
export function pack(message: FromPhone): Uint8Array {
  switch (message.kind) {
    case "Hello": {
      const m = message;
      return trimmed(
        [1, PROTOCOL, m.name, m.shard, 0],
        [m.modelDigest, m.run, m.heldVersion, m.pendingRound, m.link, 0, m.partialDigest, m.partialBytes, m.stages],
        [EMPTY, "", -1, -1, "", 0, EMPTY, 0, 0],
      );
    }
    case "UpdateBegin": {
      const m = message;
      return encode([6, m.round, m.size, m.digest, m.examples, m.offset, m.data]);
    }
    case "UpdateChunk":
      return encode([7, message.offset, message.data]);
    case "WholeUpdate":
      return trimmed([12, message.round, message.data], [message.examples], [0]);
  }
}

function trimmed(head: unknown[], spare: (number | string | Uint8Array)[], defaults: typeof spare): Uint8Array {
  let kept = spare.length;
  while (kept && isDefault(spare[kept - 1], defaults[kept - 1])) kept--;
  return encode([...head, ...spare.slice(0, kept)]);
}

function isDefault(value: number | string | Uint8Array, usual: number | string | Uint8Array): boolean {
  return value instanceof Uint8Array ? value.length === 0 : value === usual;
}

/** Return settings of training from their eight elements. */
export function trainingOf(elements: readonly unknown[]): Training {
  const f = new Fields("training", [0, ...elements], 8, 8);
  const least = Number.MIN_VALUE;
  return {
    epochs: f.int(1, 1e9),
    batchSize: f.int(0, 1e9),
    lr: f.float(least, 1e9),
    lrDecay: f.float(least, 1),
    momentum: f.float(0, 1e9),
    weightDecay: f.float(0, 1e9),
    proxMu: f.float(0, 1e9),
    set: f.map() as Settings,
  };
}

const ELEMENTS = ["epochs", "batch_size", "lr", "lr_decay", "momentum", "weight_decay", "prox_mu", "set"] as const;

/** Return uplink and training of a round: those of Welcome with what its Task changes. */
export function changed(
  said: { readonly uplink: string; readonly training: Training },
  changes: ReadonlyMap<string, unknown>,
): { uplink: string; training: Training } {
  const t = said.training;
  const elements: unknown[] = [
    t.epochs, t.batchSize, t.lr, t.lrDecay, t.momentum, t.weightDecay, t.proxMu, Object.fromEntries(t.set),
  ];
  let { uplink } = said;
  for (const [name, value] of changes) {
    const place = ELEMENTS.indexOf(name as (typeof ELEMENTS)[number]);
    if (place >= 0) elements[place] = value;
    else if (name === "uplink" && typeof value === "string") uplink = value;
    else throw new FaultError(`Task changes ${JSON.stringify(name)}, which no round may`);
  }
  return { uplink, training: trainingOf(elements) };
}
