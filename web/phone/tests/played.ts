/** A phone's surroundings that a test plays: a network whose server is the test, a clock that stands, a trainer that waits. */

import type { Description } from "../learning/description.ts";
import { StoppedError } from "../learning/training.ts";
import type { Job, Trained } from "../learning/round.ts";
import type { Memory, Store } from "../life/memory.ts";
import { Phone } from "../life/phone.ts";
import type { Clock, Connection, Listener, Network, Trainer, Watcher } from "../life/surroundings.ts";

export const LITE: Description = {
  problem: "digits/lite", input: [1, 28, 28], classes: 10, digits: true, drawing: { mean: 0.1307, deviation: 0.3081 },
  layers: [
    { kind: "conv", weight: "conv1.weight", bias: "conv1.bias", stride: [2, 2], padding: [2, 2] }, { kind: "relu" },
    { kind: "conv", weight: "conv2.weight", bias: "conv2.bias", stride: [1, 1], padding: [1, 1] },
    { kind: "max", size: [2, 2] }, { kind: "relu" },
    { kind: "conv", weight: "conv3.weight", bias: "conv3.bias", stride: [1, 1], padding: [1, 1] },
    { kind: "max", size: [2, 2] }, { kind: "relu" }, { kind: "flatten" },
    { kind: "linear", weight: "a.weight", bias: "a.bias" },
  ],
};

/** Keeps everything in memory, as a disk would: what is saved outlives a phone. */
export class MemoryStore implements Store {
  kept: Partial<Memory> = {};
  async load(): Promise<Partial<Memory>> {
    return structuredClone(this.kept);
  }
  async save(changes: Partial<Memory>): Promise<void> {
    this.kept = { ...this.kept, ...structuredClone(changes) };
  }
}

export interface Call {
  readonly listener: Listener;
  readonly sent: Uint8Array[];
  closedWith: { code: number; reason: string } | null;
}

export class Played {
  readonly calls: Call[] = [];
  readonly said: string[] = [];
  readonly jobs: { job: Job; done: (trained: Trained) => void; fail: (error: Error) => void }[] = [];
  readonly waits: { ms: number; call: () => void }[] = [];
  over = false;
  refusal: string | null | Promise<null> = null;
  readonly phone: Phone;

  constructor(readonly store = new MemoryStore()) {
    const network: Network = { connect: (listener) => this.connected(listener), refusal: async () => this.refusal };
    const clock: Clock = {
      after: (ms, call) => {
        const wait = { ms, call };
        this.waits.push(wait);
        return () => void this.waits.splice(this.waits.indexOf(wait), 1);
      },
      random: () => 0.5,
    };
    const trainer: Trainer = {
      train: (job) => new Promise((done, fail) => this.jobs.push({ job, done, fail })),
      stop: () => this.jobs.at(-1)?.fail(new StoppedError("stopped")),
    };
    const watcher: Watcher = {
      says: (sentence, over) => {
        this.said.push(sentence);
        this.over ||= over === true;
      },
      progress: () => undefined,
      kept: () => undefined,
      trained: () => undefined,
    };
    this.phone = new Phone({ store, network, trainer, clock, watcher, description: LITE, link: "" });
  }

  private connected(listener: Listener): Connection {
    const call: Call = { listener, sent: [], closedWith: null };
    this.calls.push(call);
    return {
      buffered: 0,
      send: (frame) => void call.sent.push(frame),
      close: (code, reason) => {
        call.closedWith = { code, reason };
        listener.closed(code, reason);
      },
    };
  }

  get call(): Call {
    return this.calls[this.calls.length - 1];
  }

  /** Open the newest connection; returns when the phone has said Hello. */
  async open(): Promise<void> {
    this.call.listener.opened();
    await settled();
  }

  /** Have the server say a frame. */
  async says(...frames: Uint8Array[]): Promise<void> {
    for (const frame of frames) this.call.listener.came(frame);
    await settled();
  }

  /** Let the time pass that the phone waits for. */
  async wait(): Promise<void> {
    this.waits.shift()?.call();
    await settled();
  }
}

/** Wait until nothing is left to be handled. */
export function settled(): Promise<void> {
  return new Promise((done) => setImmediate(() => setImmediate(() => setImmediate(done))));
}
