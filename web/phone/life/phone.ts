/**
 * One phone's life in a run: join, download, train, upload, come back. docs/PROTOCOL.md is what it does.
 *
 * All that happens is handled in one queue, one thing after the other, so that what is kept is always of one moment:
 * a message that came is handled when what came before it is on the disk.
 */

import { FaultError, UnableError } from "../codec/fault.ts";
import { ABLE } from "../codec/spec.ts";
import { Pipeline } from "../codec/pipeline.ts";
import { DivergedError, StoppedError } from "../learning/training.ts";
import type { Trained } from "../learning/round.ts";
import * as closing from "../wire/closing.ts";
import { changed, type FromPhone, type FromServer, type ModelBegin, type Task, type Welcome } from "../wire/messages.ts";
import { Delivery } from "./delivery.ts";
import { Download } from "./download.ts";
import { Downlink } from "./downlink.ts";
import { modelDigest } from "./fingerprint.ts";
import { begunRun, checked } from "./joining.ts";
import { Link } from "./link.ts";
import { EMPTY, type Memory } from "./memory.ts";
import { comeBack } from "./returning.ts";
import type { Surroundings } from "./surroundings.ts";

export class Phone {
  private memory: Memory = EMPTY;
  private queue: Promise<void> = Promise.resolve();
  private link: Link | null = null;
  private task: Task | null = null;
  /** A Task that waits for the word about the finished update. */
  private waiting: Task | null = null;
  private training: number | null = null;
  private failures = 0;
  private callOff: (() => void) | null = null;
  private over = false;
  /** A run whose version 0 this phone has not been able to draw: Hello says so. */
  private undrawn = "";

  constructor(private readonly around: Surroundings) {}

  /** Take up what was kept, and connect; `name` is for a phone that has none yet. */
  start(name: string): Promise<void> {
    return this.then(async () => {
      this.memory = { ...EMPTY, ...(await this.around.store.load()) };
      if (this.memory.name === "") await this.save({ name });
      this.around.watcher.kept(this.memory);
      // Another tab may have taken over meanwhile.
      if (!this.over) this.connect();
    });
  }

  /** Connect now, if the phone waits to do so. */
  wake(): void {
    if (this.callOff !== null && !this.over) this.connect();
  }

  /** The network is gone: do not wait for a connection that nothing comes from. */
  lost(): void {
    const { link } = this;
    if (link === null) return;
    link.hangUp(closing.DONE, "");
    void this.then(() => this.ended(link, 1006, "the network is gone"));
  }

  /** Take leave for good, with what is kept as it is, and say so. */
  leave(sentence: string): Promise<void> {
    return this.then(() => {
      this.stop(sentence);
      this.link?.hangUp(closing.DONE, "the phone leaves");
    });
  }

  private then(act: () => Promise<void> | void): Promise<void> {
    this.queue = this.queue.then(act).catch((error: unknown) => {
      const sentence = error instanceof Error ? error.message : String(error);
      this.stop(`this page failed: ${sentence}`);
      this.link?.hangUp(closing.UNABLE, sentence);
    });
    return this.queue;
  }

  private async save(changes: Partial<Memory>): Promise<void> {
    this.memory = { ...this.memory, ...changes };
    await this.around.store.save({ ...changes, counts: this.memory.counts });
    this.around.watcher.kept(this.memory);
  }

  private say(sentence: string): void {
    if (!this.over) this.around.watcher.says(sentence);
  }

  private stop(sentence: string): void {
    if (this.over) return;
    this.over = true;
    this.callOff?.();
    this.callOff = null;
    if (this.training !== null) this.around.trainer.stop();
    this.around.watcher.says(sentence, true);
  }

  // Connections

  private connect(): void {
    this.callOff?.();
    this.callOff = null;
    this.say("connecting to the server");
    const link: Link = new Link((listener) => this.around.network.connect(listener), {
      opened: () => void this.then(() => this.hello(link)),
      came: (frame) => void this.then(() => this.came(link, frame)),
      closed: (code, reason) => void this.then(() => this.ended(link, code, reason)),
    });
    this.link = link;
  }

  private hello(link: Link): void {
    if (link !== this.link) return;
    link.open = true;
    const { name, run, shard, tensors, model, finished, partial } = this.memory;
    this.send(link, {
      kind: "Hello",
      name,
      shard,
      modelDigest: run ? modelDigest(tensors) : new Uint8Array(0),
      run: this.undrawn || run,
      heldVersion: this.undrawn ? -1 : (model?.version ?? -1),
      pendingRound: finished?.round ?? -1,
      link: this.around.link,
      partialDigest: partial?.digest ?? new Uint8Array(0),
      partialBytes: partial?.data.length ?? 0,
      stages: ABLE,
    });
  }

  private send(link: Link, message: FromPhone): void {
    const frame = link.session.send(message);
    link.connection.send(frame);
    this.count(message.kind === "Hello" ? "handshakes" : "up", frame.length);
  }

  /** Count bytes; they are kept with whatever is kept next. */
  private count(what: "up" | "down" | "handshakes", bytes: number): void {
    const { counts } = this.memory;
    this.memory = { ...this.memory, counts: { ...counts, [what]: counts[what] + bytes } };
  }

  private async came(link: Link, frame: Uint8Array): Promise<void> {
    if (link !== this.link || link.hungUp || this.over) return;
    try {
      const message = link.session.receive(frame);
      this.count(message.kind === "Welcome" ? "handshakes" : "down", frame.length);
      await this.heard(link, message);
      this.around.watcher.kept(this.memory);
    } catch (error) {
      if (error instanceof UnableError) {
        link.hangUp(closing.UNABLE, error.message);
        this.stop(error.message);
      } else if (error instanceof FaultError) {
        this.say(`the server is at fault: ${error.message}`);
        link.hangUp(closing.PROTOCOL_FAULT, error.message);
      } else {
        throw error;
      }
    }
  }

  private async ended(link: Link, code: number, reason: string): Promise<void> {
    if (link !== this.link) return;
    this.link = null;
    link.delivery?.stop();
    if (this.over) return;
    if (code === closing.PAYLOAD && !link.hungUp) await this.save({ finished: null });
    if (closing.isFinal(code) && !link.hungUp) {
      this.stop(code === closing.DONE ? reason || "the run is over" : reason || `the server closed with ${code}`);
      return;
    }
    if (link.open) {
      this.comeBack(code, reason);
      return;
    }
    // Not in the queue's turn: who leaves must not wait for a door that does not answer.
    void this.around.network.refusal().then((refusal) =>
      this.then(() => (refusal === null ? this.comeBack(code, reason) : this.stop(refusal))),
    );
  }

  /** Connect again when it is time to. */
  private comeBack(code: number, reason: string): void {
    if (this.over) return;
    const { ms, sentence } = comeBack(code, reason, this.failures, this.around.clock.random());
    this.failures += 1;
    this.say(sentence);
    this.callOff = this.around.clock.after(ms, () => this.wake());
  }

  // Messages

  private async heard(link: Link, message: FromServer): Promise<void> {
    switch (message.kind) {
      case "Welcome": return this.welcomed(link, message);
      case "Task":
        link.told = message.version;
        return this.asked(link, message);
      case "ModelBegin": return this.begun(link, message);
      case "ModelChunk": return this.grown(link, message.data);
      case "WholeModel": {
        const { version, base, data } = message;
        const held = this.downlink(link).apply(this.memory, version, base, [data]);
        link.download = null;
        await this.save({ ...held, partial: null });
        if (link.told !== version) {
          link.told = version;
          return this.asked(link, { kind: "Task", round: version + 1, version, changes: new Map() });
        }
        return this.begin(link);
      }
      case "Ack": {
        const { finished } = this.memory;
        if (finished?.round !== message.round || link.delivery === null) return;
        link.delivery.acked(message.offset);
        this.around.watcher.progress("uploading", message.offset, finished.payload.length);
        return;
      }
      case "Accepted": return this.accepted(link, message.round);
      case "Cancel": return this.cancelled(link, message.round);
      case "Finish":
        this.stop(message.reason || "the run needs this phone no more");
    }
  }

  private downlink(link: Link): Downlink {
    if (link.downlink === null) throw new FaultError("a model before Welcome");
    return link.downlink;
  }

  private async welcomed(link: Link, welcome: Welcome): Promise<void> {
    this.failures = 0;
    link.welcome = welcome;
    const { problem } = this.around.description;
    if (welcome.problem !== problem) {
      // Names and shapes of tensors alone do not say what is done with them. The server is told of no inability: with
      // the run's own layers this phone can.
      this.stop(`this server's run is of ${welcome.problem} now, and this page of ${problem}: reload it`);
      link.hangUp(closing.DONE, "this page is of another problem");
      return;
    }
    const { tensors, downlink } = checked(welcome, this.memory.tensors, this.around.description);
    link.downlink = downlink;
    if (welcome.run !== this.memory.run || welcome.shard !== this.memory.shard) {
      // What is trained for another run or shard is no answer to this one's tasks.
      if (this.training !== null) this.around.trainer.stop();
      this.training = this.task = this.waiting = null;
    }
    if (welcome.run !== this.memory.run) {
      const begun = begunRun(welcome, tensors, downlink, this.undrawn !== welcome.run);
      if (begun === null) {
        // It comes back and says that it holds nothing, and gets the model whole.
        this.undrawn = welcome.run;
        link.hangUp(closing.PAYLOAD, "the initial weights that were drawn have another digest");
        return;
      }
      this.undrawn = "";
      await this.save({ ...begun, counts: { ...begun.counts, handshakes: this.memory.counts.handshakes } });
    } else if (welcome.shard !== this.memory.shard) {
      await this.save({ shard: welcome.shard, tensors, finished: null, accepted: null, residual: null });
    }
    this.say(`phone ${welcome.shard + 1} of ${welcome.shards} in run ${welcome.run}, waiting to be asked`);
    if (this.memory.finished !== null) this.deliver(link, true);
  }

  private async asked(link: Link, task: Task): Promise<void> {
    const { finished, accepted } = this.memory;
    if (accepted?.round === task.round) {
      // Who accepted these bytes has lost them.
      await this.save({ finished: { ...accepted, residual: this.memory.residual } });
      this.deliver(link, false);
    } else if (finished !== null) {
      if (finished.round !== task.round) this.waiting = task;
      if (link.delivery === null) this.deliver(link, true);
    } else if (this.training !== task.round) {
      if (this.training !== null) this.around.trainer.stop();
      this.training = null;
      this.task = task;
      await this.begin(link);
    }
  }

  // Down

  private async begun(link: Link, message: ModelBegin): Promise<void> {
    const downlink = message.spec
      ? new Downlink(message.spec, this.memory.tensors, this.welcome(link).seed)
      : this.downlink(link);
    downlink.check(message.lengths);
    this.say(`downloading version ${message.version} of the model`);
    link.download = new Download(message, downlink, this.memory.partial);
    await this.arrived(link, link.download);
  }

  private async grown(link: Link, data: Uint8Array): Promise<void> {
    if (link.download === null) return;
    link.download.add(data);
    await this.arrived(link, link.download);
  }

  private async arrived(link: Link, download: Download): Promise<void> {
    if (!download.whole) {
      await this.save({ partial: download.partial });
      return;
    }
    link.download = null;
    const { begin } = download;
    if (!download.right) {
      await this.save({ partial: null });
      link.hangUp(closing.PAYLOAD, "the model's bytes have another digest");
      return;
    }
    const held = download.downlink.apply(this.memory, begin.version, begin.base, download.parts);
    const origin = this.downlink(link).keepsOrigin ? held.origin : null;
    await this.save({ model: held.model, origin, partial: null });
    await this.begin(link);
  }

  // Training

  private welcome(link: Link): Welcome {
    if (link.welcome === null) throw new FaultError("a message before Welcome");
    return link.welcome;
  }

  /** Begin to train, if there is a Task whose model is here. */
  private async begin(link: Link): Promise<void> {
    const { task, memory } = this;
    if (task === null || this.training !== null || memory.model?.version !== task.version) return;
    const welcome = this.welcome(link);
    const { uplink, training } = changed(welcome, task.changes);
    new Pipeline(uplink, memory.tensors);
    this.training = task.round;
    this.say(`training in round ${task.round}`);
    const job = {
      description: this.around.description,
      layout: memory.tensors,
      weights: memory.model.weights,
      key: { seed: welcome.seed, round: task.round, client: welcome.shard },
      uplink, training, clip: welcome.clip, residual: memory.residual,
    };
    const { run, shard } = memory;
    const stepped = (done: number, steps: number) => {
      if (this.training === task.round) this.around.watcher.progress("training", done, steps);
    };
    this.around.trainer.train(job, welcome, stepped).then(
      (trained) => void this.then(() => this.trained(run, shard, task, trained)),
      (error: unknown) => void this.then(() => this.failed(task, error)),
    );
  }

  private async trained(run: string, shard: number, task: Task, trained: Trained): Promise<void> {
    if (this.training !== task.round || this.memory.run !== run || this.memory.shard !== shard) return;
    this.training = this.task = null;
    const { payload, examples, residual } = trained;
    await this.save({ finished: { round: task.round, payload, examples, residual }, accepted: null });
    this.around.watcher.trained(task.round, trained.weights);
    if (this.link?.welcome) this.deliver(this.link, false);
  }

  private failed(task: Task, error: unknown): void {
    if (error instanceof StoppedError || this.training !== task.round) return;
    this.training = this.task = null;
    const sentence = error instanceof Error ? error.message : String(error);
    if (error instanceof UnableError) {
      this.link?.hangUp(closing.UNABLE, sentence);
      this.stop(sentence);
      return;
    }
    const why = error instanceof DivergedError ? `the training diverged: ${sentence}` : sentence;
    this.say(`no update of round ${task.round}: ${why}`);
    this.link?.hangUp(closing.UNTRAINED, why);
  }

  // Up

  /** Send the finished update; after a broken link, ask first how much of it is there. */
  private deliver(link: Link, ask: boolean): void {
    const { finished } = this.memory;
    if (finished === null || link.welcome === null) return;
    this.say(`sending the update of round ${finished.round}: ${finished.payload.length} bytes`);
    const { chunkBytes, maxExamples } = link.welcome;
    const about = { update: finished, chunkBytes, maxExamples };
    link.delivery?.stop();
    link.delivery = new Delivery(about, link.connection, this.around.clock, (message) => this.send(link, message));
    if (ask) link.delivery.ask();
    else link.delivery.begin();
  }

  private async accepted(link: Link, round: number): Promise<void> {
    const { finished, counts } = this.memory;
    if (finished?.round !== round) return;
    link.delivery?.stop();
    link.delivery = null;
    const { payload, examples, residual } = finished;
    if (this.memory.accepted?.round !== round) {
      const more = { accepted: counts.accepted + 1, payload: counts.payload + payload.length };
      this.memory = { ...this.memory, counts: { ...counts, ...more } };
    }
    await this.save({ finished: null, residual, accepted: { round, payload, examples } });
    this.say(`the update of round ${round} counts: ${payload.length} bytes left this phone`);
    await this.resume(link);
  }

  private async cancelled(link: Link, round: number): Promise<void> {
    if (this.training === round) {
      this.around.trainer.stop();
      this.training = null;
    }
    if (this.task?.round === round) {
      this.task = null;
      link.download = null;
    }
    if (this.waiting?.round === round) this.waiting = null;
    if (this.memory.finished?.round === round) {
      link.delivery?.stop();
      link.delivery = null;
      await this.save({ finished: null });
      this.say(`round ${round} went on without this phone`);
    }
    await this.resume(link);
  }

  /** Take up the Task that waited, now that the word about the update before is here. */
  private async resume(link: Link): Promise<void> {
    const { waiting } = this;
    if (waiting === null || this.memory.finished !== null) return;
    this.waiting = null;
    await this.asked(link, waiting);
  }
}
