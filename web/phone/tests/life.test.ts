/** A phone's life on a played server, whose frames are those of docs/PROTOCOL.md. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { decode, encode } from "@msgpack/msgpack";

import { digestOf } from "../wire/digest.ts";
import { bytes, hex } from "./hex.ts";
import { MemoryStore, Played, settled } from "./played.ts";

const page = readFileSync("../docs/PROTOCOL.md", "utf8");

/** Return the frames of an exchange on the page, with who says each. */
function exchange(name: string): { who: string; frame: Uint8Array }[] {
  const block = page.split(`<!-- ${name}: begin -->`)[1].split(`<!-- ${name}: end -->`)[0];
  const joined = block.replaceAll("```", "").replaceAll(/\n +/g, "").trim().split("\n");
  return joined.map((line) => {
    const [who, text] = line.split(/ +/);
    return { who, frame: bytes(text) };
  });
}

const whole = exchange("exchange");
const server = whole.filter(({ who }) => who === "server").map(({ frame }) => frame);
const said = whole.filter(({ who }) => who === "phone").map(({ frame }) => frame);
const [welcome, task, accepted1, model1, accepted2, finish] = server;
const payloadOf = (frame: Uint8Array) => (decode(frame) as [number, number, Uint8Array])[2].slice();
const trained = (payload: Uint8Array) => ({ payload, examples: 144, residual: null, weights: new Float32Array(29322) });

/** Return a played phone that is connected and welcomed. */
async function joined(store = new MemoryStore(), answer = welcome): Promise<Played> {
  const played = new Played(store);
  await played.phone.start("phone-7");
  await played.open();
  await played.says(answer);
  return played;
}

/** Return the frame of a Welcome with some of its fields changed. */
function changed(fields: Record<number, unknown>): Uint8Array {
  const elements = decode(welcome, { useBigInt64: true }) as unknown[];
  for (const [at, value] of Object.entries(fields)) elements[Number(at)] = value;
  return encode(elements, { useBigInt64: true });
}

test("the exchange of the page, frame by frame", async () => {
  const played = await joined();
  const hello = decode(played.call.sent[0]) as unknown[];
  // Hello is the page's, with what this phone can do behind it.
  assert.deepEqual(hello.slice(0, 5), decode(said[0]));
  assert.deepEqual(hello.slice(5, 13), [new Uint8Array(0), "", -1, -1, "", 0, new Uint8Array(0), 0]);
  assert.equal(hello[13], 2 ** 24 - 1 - [4, 5, 7, 17, 18, 19, 20, 21].reduce((all, bit) => all + 2 ** bit, 0));
  // Version 0 was drawn, and has the digest of Welcome.
  const { weights, version } = played.store.kept.model!;
  assert.equal(version, 0);
  assert.equal(hex(digestOf(new Uint8Array(weights.buffer))), "907481ea44c2c7dd");
  await played.says(task);
  assert.equal(played.jobs[0].job.training.lr, 0.05);
  played.jobs[0].done(trained(payloadOf(said[1])));
  await settled();
  assert.equal(hex(played.call.sent[1]), hex(said[1]));
  await played.says(accepted1, model1);
  // A WholeModel of zeros is the model as it was; it is the Task of round 2, too.
  assert.deepEqual(played.store.kept.model, { version: 1, weights });
  assert.deepEqual(played.jobs[1].job.key, { seed: 0n, round: 2, client: 0 });
  played.jobs[1].done(trained(payloadOf(said[2])));
  await settled();
  assert.equal(hex(played.call.sent[2]), hex(said[2]));
  await played.says(accepted2, finish);
  assert.ok(played.over);
  assert.equal(played.said.at(-1), "all 2 rounds are done");
  const { counts } = played.store.kept;
  assert.deepEqual([counts!.accepted, counts!.payload], [2, 24]);
  assert.equal(counts!.up, said[1].length + said[2].length);
});

test("an update goes on at the byte that the server has, after the phone was killed", async () => {
  const [, , , again, question, ack, rest, accepted] = exchange("resume").map(({ frame }) => frame);
  const first = await joined();
  await first.says(task);
  // The page's update: the first seven bytes of its UpdateBegin, and the last five of its UpdateChunk.
  const begun = (decode(exchange("resume")[0].frame) as Uint8Array[])[6];
  const ended = (decode(rest) as Uint8Array[])[2];
  first.jobs[0].done(trained(Uint8Array.of(...begun, ...ended)));
  await settled();
  const second = new Played(first.store);
  await second.phone.start("another name");
  await second.open();
  const hello = decode(second.call.sent[0]) as unknown[];
  assert.deepEqual([hello[2], hello[6], hello[7], hello[8]], ["phone-7", "5eed1e57", 0, 1]);
  assert.equal((hello[5] as Uint8Array).length, 8);
  await second.says(again);
  assert.equal(hex(second.call.sent[1]), hex(question));
  await second.says(ack);
  assert.equal(hex(second.call.sent[2]), hex(rest));
  await second.says(accepted);
  assert.equal(second.store.kept.finished, null);
  assert.equal(second.store.kept.accepted!.round, 1);
});

test("a phone that gets another shard trains its round's Task for that one", async () => {
  const played = await joined();
  await played.says(task);
  assert.deepEqual(played.jobs[0].job.key, { seed: 0n, round: 1, client: 0 });
  played.call.listener.closed(1006, "");
  await settled();
  await played.wait();
  await played.open();
  await played.says(changed({ 4: 1, 5: 2 }), task);
  assert.deepEqual(played.jobs[1].job.key, { seed: 0n, round: 1, client: 1 });
  played.jobs[1].done(trained(payloadOf(said[1])));
  await settled();
  assert.equal(hex(played.call.sent[1]), hex(said[1]));
});

test("a Task of another round waits for the word about the update", async () => {
  const played = await joined();
  await played.says(task);
  played.jobs[0].done(trained(payloadOf(said[1])));
  await settled();
  await played.says(encode([3, 2, 0]));
  assert.equal(played.jobs.length, 1);
  await played.says(encode([10, 1]));
  assert.equal(played.jobs.length, 2);
  assert.equal(played.jobs[1].job.key.round, 2);
  assert.equal(played.store.kept.finished, null);
});

test("a Task of the same round goes on with the training, one of another round stops it", async () => {
  const played = await joined();
  await played.says(task, task);
  assert.equal(played.jobs.length, 1);
  await played.says(encode([3, 2, 0]));
  assert.equal(played.jobs.length, 2);
  await played.says(encode([10, 2]));
  played.jobs[1].done(trained(payloadOf(said[1])));
  await settled();
  assert.equal(played.call.sent.length, 1);
});

test("an accepted update is sent again where its round asks once more, and counts once", async () => {
  const played = await joined();
  await played.says(task);
  played.jobs[0].done(trained(payloadOf(said[1])));
  await settled();
  await played.says(accepted1, task);
  assert.equal(hex(played.call.sent[2]), hex(said[1]));
  await played.says(accepted1);
  assert.equal(played.store.kept.counts!.accepted, 1);
});

test("a download that broke off goes on at the byte that was kept", async () => {
  const weights = new Uint8Array(4 * 29322).map((_, i) => (i % 4 === 3 ? 0x3c : i % 251));
  const begin = (offset: number, data: Uint8Array) =>
    encode([4, 5, -1, "float32", [weights.length], digestOf(weights), offset, data]);
  const first = await joined();
  const more = encode([5, 60000, weights.subarray(60000, 80000)]);
  await first.says(encode([3, 6, 5]), begin(0, weights.subarray(0, 60000)), more);
  const second = new Played(first.store);
  await second.phone.start("");
  await second.open();
  const hello = decode(second.call.sent[0]) as unknown[];
  assert.deepEqual([hello[11], hello[12]], [digestOf(weights), 80000]);
  const back = changed({ 12: new Uint8Array(0), 13: [], 14: [] });
  await second.says(back, encode([3, 6, 5]), begin(80000, weights.subarray(80000)));
  assert.equal(second.store.kept.model!.version, 5);
  assert.equal(second.store.kept.partial, null);
  assert.deepEqual(new Uint8Array(second.jobs[0].job.weights.buffer), weights);
});

test("bytes with another digest are thrown away, and the phone comes back without them", async () => {
  const played = await joined();
  const weights = new Uint8Array(4 * 29322);
  const [wrong, first] = [new Uint8Array(8), weights.subarray(0, 65536)];
  await played.says(encode([3, 6, 5]), encode([4, 5, -1, "float32", [weights.length], wrong, 0, first]));
  await played.says(encode([5, 65536, weights.subarray(65536)]));
  assert.equal(played.call.closedWith!.code, 4003);
  assert.equal(played.store.kept.partial, null);
  await played.wait();
  assert.equal(played.calls.length, 2);
});

test("a phone whose drawn weights have another digest says that it holds nothing", async () => {
  const played = await joined(new MemoryStore(), changed({ 12: new Uint8Array(8) }));
  assert.equal(played.call.closedWith!.code, 4003);
  assert.equal(played.store.kept.run, undefined);
  await played.wait();
  await played.open();
  const hello = decode(played.call.sent[0]) as unknown[];
  assert.deepEqual([hello[6], hello[7]], ["5eed1e57", -1]);
  await played.says(changed({ 12: new Uint8Array(8) }));
  assert.equal(played.store.kept.run, "5eed1e57");
  assert.equal(played.store.kept.model, null);
});

test("what this phone cannot do is said in a sentence, and it stays away", async () => {
  for (const [fields, sentence] of [
    [{ 9: "feedback | topk(1/400) | ternary | entropy" }, /this phone cannot topk/],
    [{ 10: "rotate | eden(4) | entropy" }, /this phone cannot entropy/],
    [{ 16: true }, /sums under masks/],
    [{ 16: false, 17: 1, 18: false, 19: 2.5 }, /phones add noise/],
    [{ 14: [["x", [3], new Uint8Array(0)]] }, /need a tensor "conv1.weight"/],
  ] as const) {
    const welcomed = { 12: new Uint8Array(8), 15: 65536, 16: false, ...fields };
    const played = await joined(new MemoryStore(), changed(welcomed));
    assert.equal(played.call.closedWith!.code, 4010);
    assert.ok(played.over);
    assert.match(played.said.at(-1) ?? "", sentence);
  }
});

test("a page of another problem trains nothing, and tells the server of no inability", async () => {
  const played = await joined(new MemoryStore(), changed({ 2: "mnist/lite" }));
  await played.says(task);
  assert.equal(played.call.closedWith!.code, 1000);
  assert.ok(played.over);
  assert.equal(played.said.at(-1), "this server's run is of mnist/lite now, and this page of digits/lite: reload it");
  assert.equal(played.jobs.length, 0);
  assert.equal(played.store.kept.run, undefined);
});

test("codes that are final keep the phone away, others bring it back, and rest lasts as long as was said", async () => {
  for (const [code, reason, ms] of [
    [4004, "the token of 'x' was revoked", null],
    [4005, "phone 'x' has a newer connection", null],
    [1006, "", 250],
    [1001, "the server stops", 250],
    [4006, "too few phones", 250],
    [4013, "9 12.5", 12500],
  ] as const) {
    const played = await joined();
    played.call.listener.closed(code, reason);
    await settled();
    assert.equal(played.over, ms === null);
    assert.deepEqual(played.waits.map((wait) => wait.ms), ms === null ? [] : [ms]);
  }
});

test("an update that does not decode is forgotten, and its residual is not", async () => {
  const played = await joined();
  await played.store.save({ residual: Float32Array.of(1) });
  await played.says(task);
  played.jobs[0].done(trained(payloadOf(said[1])));
  await settled();
  played.call.listener.closed(4003, "wrong length");
  await settled();
  assert.equal(played.store.kept.finished, null);
  assert.deepEqual(played.store.kept.residual, Float32Array.of(1));
});

test("messages out of turn, with gaps or beyond their end are the server's fault", async () => {
  for (const frames of [
    [welcome],
    [encode([5, 0, new Uint8Array(3)])],
    [encode([4, 5, -1, "float32", [4 * 29322], new Uint8Array(8), 0, new Uint8Array(9)]), encode([5, 8, new Uint8Array(1)])],
    [encode([4, 5, -1, "float32", [10], new Uint8Array(8), 0, new Uint8Array(11)])],
    [encode([99])],
    [Uint8Array.of(0xc1)],
    [encode([8, 1])],
    [encode([8, 1, -1])],
    [encode([3, 1, 0, { cohort: 3 }])],
  ]) {
    const played = await joined();
    await played.says(...frames);
    assert.equal(played.call.closedWith?.code, 4001, played.said.at(-1) ?? "");
    assert.equal(played.waits.length, 1);
  }
});

test("who leaves does not wait for a server that does not answer", async () => {
  const played = new Played();
  await played.phone.start("phone-7");
  played.refusal = new Promise(() => undefined);
  played.call.listener.closed(1006, "");
  await settled();
  void played.phone.leave("you have left the run");
  await settled();
  assert.ok(played.over);
  assert.equal(played.said.at(-1), "you have left the run");
});

test("a phone that was left before it could start opens no connection", async () => {
  const played = new Played();
  void played.phone.leave("this phone goes on in another tab");
  await played.phone.start("phone-7");
  assert.equal(played.calls.length, 0);
  assert.equal(played.said.at(-1), "this phone goes on in another tab");
});

test("more bytes of an update than it has are the server's fault, and not waited on", async () => {
  const first = await joined();
  await first.says(task);
  first.jobs[0].done(trained(payloadOf(said[1])));
  await settled();
  const second = await joined(first.store, changed({ 12: new Uint8Array(0), 13: [], 14: [] }));
  await second.says(encode([8, 1, 10_000]));
  assert.equal(second.call.closedWith?.code, 4001);
  assert.equal(second.waits.length, 1);
});

test("a run that this phone does not know begins with nothing of the one before", async () => {
  const played = await joined();
  await played.says(task);
  played.jobs[0].done(trained(payloadOf(said[1])));
  await settled();
  const again = await joined(played.store, changed({ 1: "another" }));
  assert.equal(again.store.kept.run, "another");
  assert.equal(again.store.kept.finished, null);
  assert.equal(again.store.kept.name, "phone-7");
});
