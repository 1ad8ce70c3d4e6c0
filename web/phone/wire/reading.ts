/** Reads what a server says: a frame in, a message out, or a fault. */

import { decode } from "@msgpack/msgpack";

import { FaultError } from "../codec/fault.ts";
import type { Draw } from "../learning/initial.ts";
import { Fields, MAX_CHUNK_BYTES } from "./fields.ts";
import { trainingOf, type FromServer, type Task, type TensorEntry, type Welcome } from "./messages.ts";

export const MAX_FRAME_BYTES = 196608;
const EMPTY = new Uint8Array(0);
/** What no name may have: what moves a cursor or turns a line around. */
const MOVES = /[\u0000-\u001f\u007f-\u009f\u2028-\u202e\u2066-\u2069]/;
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
      maxBinLength: MAX_CHUNK_BYTES,
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
    case 2: return welcome(fields("Welcome", 11, 20));
    case 3: {
      const f = fields("Task", 2, 5);
      const task: Task = { kind: "Task", round: f.int(), version: f.int(), changes: f.left ? f.map() : new Map() };
      // What a gateway is told: no phone needs it.
      if (f.left) f.bin();
      if (f.left) f.int(0, 2 ** 32 - 1);
      return task;
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
  const whole = (value: unknown) => Number.isSafeInteger(value) && Number(value) >= 0;
  return array.map((value) => (whole(value) ? Number(value) : f.fault(value, "a length")));
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
    chunkBytes: f.left ? f.int(1024, MAX_CHUNK_BYTES) : MAX_CHUNK_BYTES,
    masked: f.left ? f.bool() : false,
    clip: f.left ? f.float(0, 1e9) : 0,
    bounded: f.left ? f.bool() : false,
    noise: f.left ? f.float(0, 1e9) : 0,
    colluding: f.left ? f.float(0, 1) : 0,
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
