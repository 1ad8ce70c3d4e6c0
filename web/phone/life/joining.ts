/** What a phone makes of Welcome: whether it can take part, and what it holds of a run that is new to it. */

import { UnableError } from "../codec/fault.ts";
import { Pipeline } from "../codec/pipeline.ts";
import type { Tensor } from "../codec/layout.ts";
import type { Description } from "../learning/description.ts";
import { drawn } from "../learning/initial.ts";
import { Network } from "../learning/network.ts";
import { digestOf, same } from "../wire/digest.ts";
import type { Welcome } from "../wire/messages.ts";
import { Downlink } from "./downlink.ts";
import { NO_RUN, type Memory } from "./memory.ts";

/**
 * Return the model's tensors and how it comes down; raises `UnableError` before anything is trained.
 *
 * `known` are the tensors of the model whose digest Hello had: Welcome says none then.
 */
export function checked(
  welcome: Welcome,
  known: readonly Tensor[],
  description: Description,
): { tensors: readonly Tensor[]; downlink: Downlink } {
  if (welcome.masked) throw new UnableError("this run sums under masks, which a browser's phone cannot; use fl-edge");
  if (welcome.bounded || welcome.noise > 0) {
    throw new UnableError("this run's phones add noise to what they send, which a browser's phone cannot; use fl-edge");
  }
  const frozen = welcome.tensors.find((tensor) => tensor.digest.length > 0);
  if (frozen) throw new UnableError(`the model has a tensor that does not travel, ${frozen.name}; use fl-edge`);
  const tensors = welcome.tensors.length ? welcome.tensors.map(({ name, shape }) => ({ name, shape })) : known;
  new Network(description, tensors);
  new Pipeline(welcome.uplink, tensors);
  return { tensors, downlink: new Downlink(welcome.downlink, tensors, welcome.seed) };
}

/**
 * Return what a phone keeps of a new run: version 0, drawn, unless the problem's own comes or `draw` is false.
 *
 * Null where what was drawn has another digest than Welcome says.
 */
export function begunRun(
  welcome: Welcome,
  tensors: readonly Tensor[],
  downlink: Downlink,
  draw: boolean,
): Omit<Memory, "name"> | null {
  const { run, shard, seed, initial, initialDigest } = welcome;
  const begun = { ...NO_RUN, run, shard, tensors };
  if (!draw || initial.length === 0) return begun;
  const weights = drawn(seed, initial, tensors);
  const bytes = new Uint8Array(weights.buffer, weights.byteOffset, weights.byteLength);
  if (!same(digestOf(bytes), initialDigest)) return null;
  return { ...begun, model: { version: 0, weights }, origin: downlink.keepsOrigin ? weights : null };
}
