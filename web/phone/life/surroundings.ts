/** What a phone has around it. A page, a worker and a test each bring their own. */

import type { Description } from "../learning/description.ts";
import type { Job, Trained } from "../learning/round.ts";
import type { Memory, Store } from "./memory.ts";

/** An open, or opening, connection. */
export interface Connection {
  send(frame: Uint8Array): void;
  close(code: number, reason: string): void;
  /** Bytes that were sent and that the socket has not taken yet. */
  readonly buffered: number;
}

export interface Listener {
  opened(): void;
  came(frame: Uint8Array): void;
  closed(code: number, reason: string): void;
}

export interface Network {
  connect(listener: Listener): Connection;
  /** Return why a connection could not be had at all, in a sentence, where coming back would change nothing. */
  refusal(): Promise<string | null>;
}

export interface Clock {
  /** Call back after some milliseconds; returns what calls that off. */
  after(ms: number, call: () => void): () => void;
  /** Return a number from 0 to 1. */
  random(): number;
}

/** Trains on the phone's examples, wherever these are. */
export interface Trainer {
  /** Rejects with `StoppedError` where `stop` was called, and `DivergedError`. `shard` is that which the phone plays. */
  train(job: Job, place: Place, stepped: (done: number, steps: number) => void): Promise<Trained>;
  stop(): void;
}

export interface Place {
  readonly shard: number;
  readonly shards: number;
  readonly maxExamples: number;
}

/** What people are told. */
export interface Watcher {
  /** In a sentence what the phone does; `over` says that it will not do anything more by itself. */
  says(sentence: string, over?: boolean): void;
  /** A share of the training or the upload of a round. */
  progress(what: "training" | "uploading", done: number, of: number): void;
  /** What is kept has changed: bytes, rounds, the model. */
  kept(memory: Memory): void;
  /** A round was trained, from the model in `memory` to weights of this phone's own. */
  trained(round: number, weights: Float32Array): void;
}

export interface Surroundings {
  readonly store: Store;
  readonly network: Network;
  readonly trainer: Trainer;
  readonly clock: Clock;
  readonly watcher: Watcher;
  readonly description: Description;
  /** For people who watch the run. */
  readonly link: string;
}
