/** Every vector of docs/vectors.json that this phone needs, to the bit. */

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { UnableError } from "../codec/fault.ts";
import { generatorOf, nameDigest } from "../codec/generator.ts";
import { latticeStep } from "../codec/lattice.ts";
import type { Tensor } from "../codec/layout.ts";
import { Pipeline } from "../codec/pipeline.ts";
import { drawn, type Draw } from "../learning/initial.ts";
import { digestOf } from "../wire/digest.ts";
import { bytes, floatHex, floats, hex } from "./hex.ts";

interface Vectors {
  keys: Named[];
  stages: Coded[];
  long: (Omit<Coded, "decoded"> & { "payload SHA-256": string; "decoded SHA-256": string })[];
  initial: { seed: string; draws: Draw[]; shapes: number[][]; weights: string; digest: string }[];
  lattice: { shapes: number[][]; weights: string; difference: string; moved: string }[];
}

interface Named {
  seed: string; round: number; client: number; purpose: string; digest: string; outputs: string[]; bytes: string;
  doubles: string; "words, an output, a word": string[];
}

interface Coded {
  spec: string; shapes: number[][]; seed: string; round: number; client: number;
  input: string; payload: string | null; decoded: string;
}

// A seed of 64 bits is no double: keep it as text.
const text = readFileSync("../docs/vectors.json", "utf8").replaceAll(/"seed": ([0-9]+)/g, '"seed": "$1"');
const vectors = JSON.parse(text) as Vectors;
const layoutOf = (shapes: number[][]): Tensor[] => shapes.map((shape, i) => ({ name: `t${i}`, shape }));
const keyOf = ({ seed, round, client }: { seed: string; round: number; client: number }) =>
  ({ seed: BigInt(seed), round, client });

for (const vector of vectors.keys) {
  test(`the generator of ${vector.seed}/${vector.round}/${vector.client}/${vector.purpose}`, () => {
    const made = () => generatorOf(keyOf(vector), vector.purpose);
    assert.equal(hex(nameDigest(keyOf(vector), vector.purpose)), vector.digest);
    const outputs = made();
    assert.deepEqual(vector.outputs.map(() => outputs.output().toString(16).padStart(16, "0")), vector.outputs);
    assert.equal(hex(made().bytes(vector.bytes.length / 2)), vector.bytes);
    const doubles = new Float64Array(bytes(vector.doubles).buffer as ArrayBuffer);
    const generator = made();
    assert.deepEqual(Array.from(doubles, () => generator.random()), Array.from(doubles));
    const mixed = made();
    const words = () => mixed.word().toString(16).padStart(8, "0");
    const [first, double, second] = vector["words, an output, a word"];
    assert.equal(words(), first);
    assert.equal(mixed.random(), hexDouble(double));
    assert.equal(words(), second);
  });
}

/** Return a double that C's %a has written, like 0x1.8p-1. */
function hexDouble(text: string): number {
  const [, fraction, exponent] = /^0x1\.([0-9a-f]+)p([-+][0-9]+)$/.exec(text)!;
  return (1 + parseInt(fraction, 16) * 16 ** -fraction.length) * 2 ** Number(exponent);
}

/** Return the pipeline of a spec, or null where this phone says that it cannot do it. */
function pipelineOf(spec: string, shapes: number[][]): Pipeline | null {
  try {
    return new Pipeline(spec, layoutOf(shapes));
  } catch (error) {
    if (error instanceof UnableError) return null;
    throw error;
  }
}

const unable: string[] = [];
for (const vector of vectors.stages) {
  const pipeline = pipelineOf(vector.spec, vector.shapes);
  if (pipeline === null) {
    unable.push(vector.spec);
    continue;
  }
  test(`${vector.spec} gives the page's bytes, and its values`, () => {
    const key = keyOf(vector);
    const payload = pipeline.encode(floats(vector.input), key);
    assert.equal(hex(payload), vector.payload);
    assert.equal(payload.length, pipeline.bytes);
    assert.equal(floatHex(pipeline.decodeWeights(bytes(vector.payload!), key)), vector.decoded);
  });
}

test("what this phone cannot do is what needs entropy, a subspace, positions, signs or qsgd", () => {
  for (const spec of unable) assert.match(spec, /entropy|lowrank|subspace|topk|sign|qsgd/);
});

for (const vector of vectors.long) {
  const pipeline = pipelineOf(vector.spec, vector.shapes);
  if (pipeline === null) continue;
  test(`${vector.spec} of ${vector.shapes[0][0]} values gives the page's bytes, and its values`, () => {
    const size = vector.shapes[0][0];
    const input = Float32Array.from({ length: size }, (_, i) => (((7919 * i) % 2003) - 1001) / 256);
    const payload = pipeline.encode(input, keyOf(vector));
    const sha256 = (data: Uint8Array) => createHash("sha256").update(data).digest("hex");
    assert.equal(sha256(payload), vector["payload SHA-256"]);
    const decoded = pipeline.decode(payload, keyOf(vector));
    assert.equal(sha256(new Uint8Array(decoded.buffer)), vector["decoded SHA-256"]);
  });
}

vectors.initial.forEach((vector, i) => {
  test(`initial weights ${i} are drawn from the seed, with the page's digest`, () => {
    const weights = drawn(BigInt(vector.seed), vector.draws, layoutOf(vector.shapes));
    assert.equal(floatHex(weights), vector.weights);
    assert.equal(hex(digestOf(new Uint8Array(weights.buffer))), vector.digest);
  });
});

vectors.lattice.forEach((vector, i) => {
  test(`difference ${i} of a lattice moves the weights to the page's`, () => {
    const moved = latticeStep(floats(vector.weights), bytes(vector.difference), layoutOf(vector.shapes));
    assert.equal(floatHex(moved), vector.moved);
  });
});

test("the example of a lattice's difference on the page", () => {
  const weights = Float32Array.from([0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.3, 0.3, 0.3]);
  const moved = latticeStep(weights, bytes("7c02010e00ff5e665699"), layoutOf([[8], [3]]));
  assert.deepEqual(Array.from(moved), [
    0.5, 0.5625, 0.4375, 0.5, 0.5, 0.5, 0.5625, 0.5, 0.2998046875, 0.2841796875, 0.2998046875,
  ]);
});

test("payloads that are too short, too long or not finite are refused", () => {
  const pipeline = new Pipeline("rotate | eden(2)", [{ name: "t", shape: [100] }]);
  const key = { seed: 0n, round: 1, client: 0 };
  const payload = pipeline.encode(new Float32Array(100).fill(0.5), key);
  assert.throws(() => pipeline.decode(payload.subarray(1), key), /ends before its values/);
  assert.throws(() => pipeline.decode(Uint8Array.of(...payload, 0), key), /1 bytes are left over/);
  payload.set([0, 0, 0xc0, 0x7f]);
  assert.throws(() => pipeline.decode(payload, key), /not finite/);
});
