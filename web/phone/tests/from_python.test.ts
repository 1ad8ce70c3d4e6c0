/** What Python has written into the folder FEATHERFED_FIXTURES: payloads of both ends, and what torch learns. */

import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { test } from "node:test";

import type { Tensor } from "../codec/layout.ts";
import { Pipeline } from "../codec/pipeline.ts";
import { spaceOf } from "../codec/space.ts";
import { parse } from "../codec/spec.ts";
import type { Description } from "../learning/description.ts";
import { bundled } from "../learning/digits.ts";
import { Network } from "../learning/network.ts";
import { train } from "../learning/training.ts";
import { trainingOf } from "../wire/messages.ts";
import { bytes, floatHex, floats, hex } from "./hex.ts";

interface Payload {
  spec: string; tensors: Tensor[]; seed: string; round: number; client: number; input: string; payload: string;
  decoded: string;
}
interface Learned {
  description: Description; tensors: Tensor[]; weights: string; inputs: string; targets: number[]; orders: number[][];
  training: unknown[]; uplink: string; seed: string; round: number; client: number; update: string;
}

const folder = process.env.FEATHERFED_FIXTURES;
const read = <T>(name: string): T[] =>
  folder && existsSync(`${folder}/${name}`) ? (JSON.parse(readFileSync(`${folder}/${name}`, "utf8")) as T[]) : [];
const keyOf = (of: { seed: string; round: number; client: number }) => ({ ...of, seed: BigInt(of.seed) });

for (const made of read<Payload>("payloads.json")) {
  test(`${made.spec} for ${made.tensors.length} tensors is Python's, there and back`, () => {
    const pipeline = new Pipeline(made.spec, made.tensors);
    const payload = pipeline.encode(floats(made.input), keyOf(made));
    assert.equal(hex(payload), made.payload);
    assert.equal(pipeline.bytes, payload.length);
    assert.equal(floatHex(pipeline.decodeWeights(bytes(made.payload), keyOf(made))), made.decoded);
  });
}

for (const shard of read<{ shard: string; inputs: string; targets: number[] }>("digits.json")) {
  test("bundled digits are Python's", () => {
    const examples = bundled(bytes(shard.shard), { mean: 0.1307, deviation: 0.3081 }, 1000);
    assert.deepEqual(Array.from(examples.targets), shard.targets);
    const expected = floats(shard.inputs);
    assert.equal(examples.inputs.length, expected.length);
    examples.inputs.forEach((value, i) => assert.ok(Math.abs(value - expected[i]) < 1e-5, `${i}: ${value}`));
    assert.equal(bundled(bytes(shard.shard), { mean: 0, deviation: 1 }, 7).targets.length, 7);
  });
}

for (const learned of read<Learned>("learned.json")) {
  test(`${learned.description.problem} with ${learned.uplink} learns what torch does`, async () => {
    const network = new Network(learned.description, learned.tensors);
    network.weights.set(floats(learned.weights));
    const space = spaceOf(parse(learned.uplink), learned.tensors, keyOf(learned));
    const examples = { inputs: floats(learned.inputs), targets: Uint8Array.from(learned.targets) };
    const training = trainingOf(learned.training);
    const update = await train(network, examples, training, space, keyOf(learned), {
      order: (epoch) => learned.orders[epoch],
    });
    const expected = floats(learned.update);
    assert.equal(update.length, expected.length);
    let most = 0;
    update.forEach((value, i) => (most = Math.max(most, Math.abs(value - expected[i]))));
    const largest = expected.reduce((a, b) => Math.max(a, Math.abs(b)), 0);
    assert.ok(largest > 0.01 && most < 1e-4, `the largest difference is ${most}, the largest change ${largest}`);
  });
}
