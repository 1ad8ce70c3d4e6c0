/** Local SGD on a phone's examples: docs/PROTOCOL.md, "Local training". */

import { generatorOf, type RoundKey } from "../codec/generator.ts";
import { expand, gather, type Space } from "../codec/space.ts";
import type { Training } from "../wire/messages.ts";
import { isDue, moved, movesOf } from "./moves.ts";
import type { Network } from "./network.ts";

/** Inputs, (examples, channels, height, width) in a row, and their classes. */
export interface Examples {
  readonly inputs: Float32Array;
  readonly targets: Uint8Array;
}

/** Training that its caller wants no more, or that has left the finite numbers. */
export class StoppedError extends Error {
  override name = "StoppedError";
}
export class DivergedError extends Error {
  override name = "DivergedError";
}

export interface Course {
  /** In which order the examples come in an epoch, counted from 0; drawn from the key where it is not given. */
  readonly order?: (epoch: number) => readonly number[];
  /** Called after each step; may throw `StoppedError`, or wait. */
  readonly stepped?: (done: number, steps: number) => void | Promise<void>;
}

/** Train `network` from the weights that it has; return what was learned, in the space's coordinates. */
export async function train(
  network: Network,
  examples: Examples,
  training: Training,
  space: Space,
  key: RoundKey,
  { order, stepped }: Course = {},
): Promise<Float32Array> {
  const count = examples.targets.length;
  const size = examples.inputs.length / count;
  const start = Float32Array.from(network.weights);
  const coordinates = new Float32Array(space.coordinates);
  const momentum = new Float32Array(space.coordinates);
  const batch = training.batchSize || count;
  const steps = training.epochs * Math.ceil(count / batch);
  const rate = Math.fround(training.lr * training.lrDecay ** (key.round - 1));
  const moves = movesOf(training.set);
  const background = examples.inputs.reduce((a, b) => Math.min(a, b), Infinity);
  const side = Math.sqrt(size);
  const shuffles = generatorOf(key, "shuffle");
  const shifts = generatorOf(key, "shift");
  let inputs = examples.inputs;
  let done = 0;
  for (let epoch = 0; epoch < training.epochs; epoch++) {
    if (isDue(moves, epoch)) inputs = moved(examples.inputs, side, background, moves, shifts);
    const chosen = order?.(epoch) ?? permutation(count, (bound) => shuffles.below(bound));
    for (let begin = 0; begin < count; begin += batch) {
      const rows = chosen.slice(begin, begin + batch);
      const some = new Float32Array(rows.length * size);
      rows.forEach((row, i) => some.set(inputs.subarray(row * size, (row + 1) * size), i * size));
      const loss = network.learn(some, Uint8Array.from(rows, (row) => examples.targets[row]));
      if (!Number.isFinite(loss)) throw new DivergedError(`the loss is ${loss} after ${done} of ${steps} steps`);
      decay(network, start, training);
      const gradient = gather(space, network.gradient);
      for (let i = 0; i < coordinates.length; i++) {
        momentum[i] = Math.fround(training.momentum * momentum[i]) + gradient[i];
        coordinates[i] -= Math.fround(rate * momentum[i]);
      }
      const change = expand(space, coordinates, start.length);
      for (let i = 0; i < start.length; i++) network.weights[i] = start[i] + change[i];
      done += 1;
      await stepped?.(done, steps);
    }
  }
  return coordinates;
}

/** Add λ·w + μ·(w − w₀) to the gradient. */
function decay({ weights, gradient }: Network, start: Float32Array, { weightDecay, proxMu }: Training): void {
  if (weightDecay === 0 && proxMu === 0) return;
  for (let i = 0; i < gradient.length; i++) {
    gradient[i] += weightDecay * weights[i] + proxMu * (weights[i] - start[i]);
  }
}

/** Return 0 … count − 1 in an order that `below` draws. */
function permutation(count: number, below: (bound: number) => number): number[] {
  const order = Array.from({ length: count }, (_, i) => i);
  for (let i = count - 1; i > 0; i--) {
    const j = below(i + 1);
    [order[i], order[j]] = [order[j], order[i]];
  }
  return order;
}
