/** One round's work on a phone, from the weights that it starts from to the bytes that it sends. */

import { product } from "../codec/floats.ts";
import type { RoundKey } from "../codec/generator.ts";
import type { Tensor } from "../codec/layout.ts";
import { Pipeline } from "../codec/pipeline.ts";
import type { Training } from "../wire/messages.ts";
import type { Description } from "./description.ts";
import { Network } from "./network.ts";
import { DivergedError, train, type Course, type Examples } from "./training.ts";

export interface Job {
  readonly description: Description;
  readonly layout: readonly Tensor[];
  readonly weights: Float32Array;
  readonly key: RoundKey;
  readonly uplink: string;
  readonly training: Training;
  /** The longest L2 norm of an update; 0: any. */
  readonly clip: number;
  readonly residual: Float32Array | null;
}

export interface Trained {
  readonly payload: Uint8Array;
  readonly examples: number;
  /** What accepting this update leaves of the residual; null: nothing. */
  readonly residual: Float32Array | null;
  /** The weights that this phone has come to by itself. */
  readonly weights: Float32Array;
}

/** Train, encode, and keep what was left out. */
export async function work(job: Job, examples: Examples, course: Course = {}): Promise<Trained> {
  const { key, layout } = job;
  const pipeline = new Pipeline(job.uplink, layout);
  const network = new Network(job.description, layout);
  network.weights.set(job.weights);
  const space = pipeline.space(key);
  let update = await train(network, examples, job.training, space, key, course);
  const structured = space.places !== null;
  const { feedback } = pipeline.stages;
  // A residual waits where other coordinates are trained; without feedback it is sent once, and is gone.
  const owed = structured ? null : job.residual;
  if (owed !== null) update = update.map((value, i) => value + owed[i]);
  const norm = Math.sqrt(product(update, update));
  if (!Number.isFinite(norm)) throw new DivergedError("the update is not finite");
  if (job.clip > 0 && norm > job.clip) {
    const factor = Math.fround(job.clip / norm);
    update = update.map((value) => value * factor);
  }
  const payload = pipeline.encode(update, key);
  let residual = structured ? job.residual : null;
  if (feedback) {
    const sent = pipeline.decode(payload, key);
    residual = update.map((value, i) => value - sent[i]);
  }
  return { payload, examples: examples.targets.length, residual, weights: network.weights };
}
