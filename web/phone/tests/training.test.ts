/** What training gives on the examples of docs/PROTOCOL.md. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { Network } from "../learning/network.ts";
import { shifted, warped } from "../learning/moves.ts";
import { train } from "../learning/training.ts";
import { spaceOf } from "../codec/space.ts";
import { parse } from "../codec/spec.ts";
import type { Description } from "../learning/description.ts";

const key = { seed: 0n, round: 1, client: 0 };

test("the page's example of local training, to its last digit", async () => {
  const layout = [{ name: "a.weight", shape: [10, 1] }, { name: "a.bias", shape: [10] }];
  const description: Description = {
    problem: "example", input: [1, 1, 1], classes: 10, digits: false, drawing: { mean: 0, deviation: 1 },
    layers: [{ kind: "linear", weight: "a.weight", bias: "a.bias" }],
  };
  const network = new Network(description, layout);
  network.weights[0] = 0.5;
  const training = {
    epochs: 1, batchSize: 2, lr: 0.1, lrDecay: 1, momentum: 0.9, weightDecay: 0.01, proxMu: 0.5, set: new Map(),
  };
  const examples = { inputs: Float32Array.of(2, 2, 2), targets: Uint8Array.of(0, 0, 0) };
  const steps: number[] = [];
  const stepped = (done: number, of: number) => void steps.push(done, of);
  const space = spaceOf(parse("float32"), layout, key);
  const update = await train(network, examples, training, space, key, { stepped });
  assert.deepEqual(steps, [1, 2, 2, 2]);
  const expected = [0.419364, ...Array(9).fill(-0.046754), 0.210394, ...Array(9).fill(-0.023377)];
  expected.forEach((value, i) => assert.ok(Math.abs(update[i] - value) < 1e-6, `${i}: ${update[i]}, not ${value}`));
});

test("an image that is moved loses what leaves it, and gains background", () => {
  const image = Float32Array.of(1, 2, 3, 4, 5, 6, 7, 8, 9);
  assert.deepEqual(Array.from(shifted(image, 3, -1, 1, -1)), [-1, -1, -1, 2, 3, -1, 5, 6, -1]);
});

test("a warp of nothing leaves an image as it is, and one by 90 degrees would turn it", () => {
  const image = Float32Array.of(1, 2, 3, 4, 5, 6, 7, 8, 9);
  assert.deepEqual(Array.from(warped(image, 3, 0, 1, 0, 0, 0)), Array.from(image));
  const turned = warped(image, 3, 0, 7.5, 1, 0, 0);
  // The pixel (x, y) becomes that at (−y, x): the right upper corner, (1, −1), that at (1, 1).
  assert.ok(Math.abs(turned[2] - 9) < 1e-5 && Math.abs(turned[0] - 3) < 1e-5, Array.from(turned).join(" "));
});
