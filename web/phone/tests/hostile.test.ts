/** Bytes that no honest server sends: each is a fault with a sentence, and nothing else happens. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { encode } from "@msgpack/msgpack";

import { FaultError, UnableError } from "../codec/fault.ts";
import { generatorOf } from "../codec/generator.ts";
import { latticeStep } from "../codec/lattice.ts";
import { Pipeline } from "../codec/pipeline.ts";
import { parse } from "../codec/spec.ts";
import { unpack } from "../wire/reading.ts";

const key = { seed: 1n, round: 1, client: 0 };
const draws = generatorOf(key, "hostile");

/** Do something that may only fail with a fault. */
function orFault(act: () => unknown): boolean {
  try {
    act();
    return true;
  } catch (error) {
    assert.ok(error instanceof FaultError || error instanceof UnableError, String((error as Error).stack));
    assert.ok(error.message.length > 0 && error.message.length < 300, error.message);
    return false;
  }
}

const frameOf = (elements: unknown[]) => encode(elements, { useBigInt64: true });
const empty = new Uint8Array(0);
const MESSAGES: unknown[][] = [
  [2, "run", "digits/lite", "iid", 0, 2, 5n, 144, 20, "rotate | eden(1)", "lattice(1)", [1, 10, 0.1, 1, 0, 0, 0, { shift: 1 }],
    new Uint8Array(8), [25, [0.5, 0.5]], [["a.weight", [3, 4], empty]], 4096, false, 1.5, false, 0.5, 0.25],
  [3, 4, 3, { uplink: "float32", lr: 0.5, set: { shift: 2 } }, new Uint8Array(2), 1],
  [4, 5, -1, "float32", [8], new Uint8Array(8), 0, new Uint8Array(8)],
  [5, 8, new Uint8Array(4)],
  [8, 1, 7], [9, 1], [10, 1], [11, "done"], [13, 1, new Uint8Array(5), 0],
];
const WRONG: unknown[] = [
  null, true, -2, -1, 1.5, NaN, Infinity, 2 ** 53, "", "x".repeat(300), "\u001b[31m", new Uint8Array(3),
  new Uint8Array(70000), [], [[]], Array(5000).fill(0), {}, { x: null }, 2n ** 64n - 1n, new Date(0),
];

test("a message with any field of another kind is a fault or within its limits", () => {
  for (const message of MESSAGES) {
    assert.ok(orFault(() => unpack(frameOf(message))), `${message[0]}`);
    for (let at = 0; at < message.length; at++) {
      for (const wrong of WRONG) orFault(() => unpack(frameOf(message.map((each, i) => (i === at ? wrong : each)))));
    }
    for (const least of [1, 2]) assert.ok(!orFault(() => unpack(frameOf(message.slice(0, least)))) || message.length <= 2);
    assert.ok(!orFault(() => unpack(frameOf([...message, 0, 0, 0]))));
  }
});

test("frames with bytes changed, cut or added are faults or messages", () => {
  for (const message of MESSAGES) {
    const frame = frameOf(message);
    for (let i = 0; i < 400; i++) {
      const changed = Uint8Array.from(frame);
      changed[draws.below(frame.length)] = draws.below(256);
      orFault(() => unpack(changed.subarray(0, draws.below(4) ? frame.length : draws.below(frame.length))));
    }
  }
  assert.ok(!orFault(() => unpack(new Uint8Array(196609))));
});

test("payloads of any bytes are faults or finite values", () => {
  const layout = [{ name: "a", shape: [7, 13] }, { name: "b", shape: [100] }];
  for (const spec of [
    "float32", "float16", "bfloat16", "quantize(3)", "rotate | eden(2)", "exact(0) | flat | rotate | vertex(32)",
    "subsample(1/3) | rotate_shared | stochastic(4)", "exact(0) | mask(1/4) | rotate | quantize(2)",
  ]) {
    const pipeline = new Pipeline(spec, layout);
    for (let i = 0; i < 60; i++) {
      orFault(() => {
        const decoded = pipeline.decodeWeights(draws.bytes(pipeline.bytes - draws.below(2)), key);
        assert.ok(decoded.every(Number.isFinite));
      });
    }
  }
});

test("lattice differences of any bytes are faults or values, soon", () => {
  const layout = [{ name: "a", shape: [300] }, { name: "b", shape: [9] }];
  const weights = new Float32Array(309).fill(0.25);
  for (let i = 0; i < 1500; i++) {
    const data = draws.bytes(1 + draws.below(120));
    data[0] = 100 + draws.below(40);
    orFault(() => latticeStep(weights, data, layout));
  }
});

test("specs that cannot be are refused, and what this phone lacks is named", () => {
  for (const spec of [
    "", "|", "rotate |", "eden(1) | rotate", "rotate | rotate", "eden", "eden(9)", "vertex(3)", "subsample(0)",
    "subsample(3/2)", "mask(1/4) | flat", "flat | mask(1/4)", "feedback | mask(1/2)", "__proto__", "constructor(1)", "exact(-1)",
  ]) {
    assert.ok(!orFault(() => parse(spec)), spec);
  }
  assert.throws(() => parse("topk(1/400) | ternary"), /this phone cannot topk/);
});
