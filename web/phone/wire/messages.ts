/** The messages of docs/PROTOCOL.md: arrays of msgpack, whose first element is the message's number. */

import { decode, encode } from "@msgpack/msgpack";

import { FaultError } from "../codec/fault.ts";
import type { Draw } from "../learning/initial.ts";

export const PROTOCOL = 2;
export const MAX_FRAME_BYTES = 131072;
const MOST = Number.MAX_SAFE_INTEGER;
/** What no name may have: what moves a cursor or turns a line around. */
const MOVES = /[\u0000-\u001f\u007f-\u009f\u2028-\u202e\u2066-\u2069]/;

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

/** Reads the fields of one message in their order; whatever is not as the page says is a fault. */
class Fields {
  private at = 1;

  constructor(
    private readonly message: string,
    private readonly elements: readonly unknown[],
    least: number,
    most: number,
  ) {
    const count = elements.length - 1;
    if (count < least || count > most) throw new FaultError(`${message} with ${count} fields, not ${least} to ${most}`);
  }

  fault(value: unknown, wanted: string): never {
    const shown = value instanceof Uint8Array ? `${value.length} bytes` : String(value).slice(0, 40);
    throw new FaultError(`${this.message}: field ${this.at} is ${shown}, not ${wanted}`);
  }

  get left(): boolean {
    return this.at < this.elements.length;
  }

  int(least = 0, most = MOST): number {
    const value = this.elements[this.at];
    const number = typeof value === "bigint" ? Number(value) : value;
    if (typeof number !== "number" || !Number.isSafeInteger(number) || number < least || number > most) {
      this.fault(value, `a whole number from ${least} to ${most}`);
    }
    this.at++;
    return number;
  }

  unsigned64(): bigint {
    const value = this.elements[this.at];
    if (typeof value !== "bigint" && !Number.isSafeInteger(value)) this.fault(value, "a whole number");
    const number = BigInt(value as number | bigint);
    if (number < 0n) this.fault(value, "0 or more");
    this.at++;
    return number;
  }

  float(least: number, most: number): number {
    const value = this.elements[this.at];
    const number = typeof value === "bigint" ? Number(value) : value;
    if (typeof number !== "number" || !(number >= least && number <= most)) {
      this.fault(value, `a number from ${least} to ${most}`);
    }
    this.at++;
    return number;
  }

  bool(): boolean {
    const value = this.elements[this.at];
    if (typeof value !== "boolean") this.fault(value, "true or false");
    this.at++;
    return value;
  }

  str(least: number, most: number, bad?: RegExp): string {
    const value = this.elements[this.at];
    // Limits count characters, not the halves of surrogate pairs.
    if (typeof value !== "string" || [...value].length < least || [...value].length > most || bad?.test(value)) {
      this.fault(value, `a text of ${least} to ${most} characters`);
    }
    this.at++;
    return value;
  }

  bin(least = 0, most = 65536): Uint8Array {
    const value = this.elements[this.at];
    if (!(value instanceof Uint8Array) || value.length < least || value.length > most) {
      this.fault(value, `${least} to ${most} bytes`);
    }
    this.at++;
    // A copy: what msgpack returns is a view of the whole frame.
    return value.slice();
  }

  array(least: number, most: number): readonly unknown[] {
    const value = this.elements[this.at];
    if (!Array.isArray(value) || value.length < least || value.length > most) {
      this.fault(value, `an array of ${least} to ${most}`);
    }
    this.at++;
    return value as unknown[];
  }

  map(): ReadonlyMap<string, unknown> {
    const value = this.elements[this.at];
    if (typeof value !== "object" || value === null || Array.isArray(value) || value instanceof Uint8Array) {
      this.fault(value, "a map");
    }
    this.at++;
    const map = new Map(Object.entries(value));
    if (map.size > 64) this.fault(value, "a map of at most 64");
    return map;
  }
}

const NAME = 64;
const NOT_PRINTABLE = /[^ -~]/;

/** Return the message of a frame; raises `FaultError` with what is wrong with it. */
export function unpack(frame: Uint8Array): FromServer {
  if (frame.length > MAX_FRAME_BYTES) throw new FaultError(`a frame of ${frame.length} bytes`);
  let elements: unknown;
  try {
    // Bounds hold while the frame is read, however much it claims to hold.
    elements = decode(frame, {
      useBigInt64: true,
      maxStrLength: 65536,
      maxBinLength: 65536,
      maxArrayLength: 4096,
      maxMapLength: 64,
      maxExtLength: 0,
    });
  } catch (error) {
    throw new FaultError(`not msgpack: ${error instanceof Error ? error.message : String(error)}`);
  }
  if (!Array.isArray(elements) || typeof elements[0] !== "number") throw new FaultError("a frame that is no message");
  const fields = (name: string, least: number, most = least) => new Fields(name, elements as unknown[], least, most);
  switch (elements[0]) {
    case 2: return welcome(fields("Welcome", 11, 17));
    case 3: {
      const f = fields("Task", 2, 3);
      return { kind: "Task", round: f.int(), version: f.int(), changes: f.left ? f.map() : new Map() };
    }
    case 4: {
      const f = fields("ModelBegin", 7);
      return {
        kind: "ModelBegin", version: f.int(), base: f.int(-1), spec: f.str(0, 256, NOT_PRINTABLE),
        lengths: numbers(f, 1, 4096), digest: f.bin(8, 8), offset: f.int(), data: f.bin(),
      };
    }
    case 5: {
      const f = fields("ModelChunk", 2);
      return { kind: "ModelChunk", offset: f.int(), data: f.bin() };
    }
    case 8: {
      const f = fields("Ack", 2);
      return { kind: "Ack", round: f.int(), offset: f.int() };
    }
    case 9: return { kind: "Accepted", round: fields("Accepted", 1).int() };
    case 10: return { kind: "Cancel", round: fields("Cancel", 1).int() };
    case 11: {
      const f = fields("Finish", 0, 1);
      return { kind: "Finish", reason: f.left ? f.str(0, 256) : "" };
    }
    case 13: {
      const f = fields("WholeModel", 2, 3);
      return { kind: "WholeModel", version: f.int(), data: f.bin(), base: f.left ? f.int(-1) : 0 };
    }
    default:
      throw new FaultError(`a message of number ${elements[0]}, which this phone is never sent`);
  }
}

function numbers(f: Fields, least: number, most: number): number[] {
  const array = f.array(least, most);
  return array.map((value) => (Number.isSafeInteger(value) && Number(value) >= 0 ? Number(value) : f.fault(value, "a length")));
}

function welcome(f: Fields): Welcome {
  return {
    kind: "Welcome",
    run: f.str(1, NAME, MOVES),
    problem: f.str(1, NAME, MOVES),
    partition: f.str(1, NAME, MOVES),
    shard: f.int(),
    shards: f.int(1),
    seed: f.unsigned64(),
    maxExamples: f.int(1),
    heartbeatS: f.float(0, 1e9),
    uplink: f.str(0, 256, NOT_PRINTABLE),
    downlink: f.str(0, 256, NOT_PRINTABLE),
    training: trainingOf(f.array(0, 64)),
    initialDigest: f.left ? f.bin(0, 8) : EMPTY,
    initial: f.left ? f.array(0, 4096).map(drawOf) : [],
    tensors: f.left ? f.array(0, 4096).map(tensorOf) : [],
    chunkBytes: f.left ? f.int(1024, 65536) : 65536,
    masked: f.left ? f.bool() : false,
    clip: f.left ? f.float(0, 1e9) : 0,
  };
}

function drawOf(draw: unknown): Draw {
  if (Number.isSafeInteger(draw) && Number(draw) >= 1) return Number(draw);
  const bounds = Array.isArray(draw) ? draw.map(Number) : [];
  if (bounds.length !== 2 || !bounds.every((bound) => Math.abs(bound) <= 1e300)) {
    throw new FaultError("Welcome: a tensor is drawn in a way that the page does not name");
  }
  return [bounds[0], bounds[1]];
}

function tensorOf(entry: unknown): TensorEntry {
  if (!Array.isArray(entry)) throw new FaultError("Welcome: a tensor that is no array");
  const f = new Fields("a tensor", [0, ...entry], 3, 3);
  const name = f.str(1, 256);
  const shape = numbers(f, 0, 16);
  return { name, shape, digest: f.bin(0, 8) };
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
