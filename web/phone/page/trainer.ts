/** The page's hands on its worker. */

import { UnableError } from "../codec/fault.ts";
import type { Tensor } from "../codec/layout.ts";
import type { Description } from "../learning/description.ts";
import type { Job, Trained } from "../learning/round.ts";
import { DivergedError, StoppedError, type Examples } from "../learning/training.ts";
import type { Place, Trainer } from "../life/surroundings.ts";
import type { Answer, Ask } from "./work.ts";

interface Waiting {
  readonly done: (answer: Answer) => void;
  readonly fail: (error: Error) => void;
  readonly stepped?: (done: number, steps: number) => void;
}

const ERRORS: Record<string, new (message: string) => Error> = { StoppedError, DivergedError, UnableError };

export class WorkerTrainer implements Trainer {
  /** Null where the last one has failed: whoever asks next has a new one. */
  private worker: Worker | null = null;
  private readonly waiting = new Map<number, Waiting>();
  private last = 0;
  private training = 0;

  /** `examples` are had anew for each round: an owner draws on. */
  constructor(private readonly examples: (place: Place) => Promise<Examples>) {
    this.hired();
  }

  private hired(): Worker {
    if (this.worker !== null) return this.worker;
    const worker = (this.worker = new Worker("/phone/worker.js"));
    worker.onmessage = ({ data }: MessageEvent<Answer>) => this.heard(data);
    worker.onerror = (event) => {
      // One that could not be loaded would take what it is sent, and never answer.
      worker.terminate();
      this.worker = null;
      const waiting = [...this.waiting.values()];
      this.waiting.clear();
      for (const each of waiting) each.fail(new Error(event.message || "the worker cannot be loaded"));
    };
    return worker;
  }

  async train(job: Job, place: Place, stepped: (done: number, steps: number) => void): Promise<Trained> {
    const id = (this.training = ++this.last);
    const examples = await this.examples(place);
    if (this.training !== id) throw new StoppedError("stopped");
    const answer = await this.ask({ kind: "train", id, job, examples }, stepped);
    if (answer.kind !== "trained") throw new Error(`the worker answers ${answer.kind}`);
    return answer.trained;
  }

  stop(): void {
    this.worker?.postMessage({ kind: "stop", id: this.training } satisfies Ask);
    this.training = 0;
  }

  /** Return the probabilities that a model gives the classes of an input. */
  async guess(
    description: Description, layout: readonly Tensor[], weights: Float32Array, input: Float32Array,
  ): Promise<Float32Array> {
    const answer = await this.ask({ kind: "guess", id: ++this.last, description, layout, weights, input });
    if (answer.kind !== "guessed") throw new Error(`the worker answers ${answer.kind}`);
    return answer.probabilities;
  }

  private ask(ask: Ask, stepped?: (done: number, steps: number) => void): Promise<Answer> {
    return new Promise((done, fail) => {
      this.waiting.set(ask.id, stepped ? { done, fail, stepped } : { done, fail });
      this.hired().postMessage(ask);
    });
  }

  private heard(answer: Answer): void {
    const waiting = this.waiting.get(answer.id);
    if (waiting === undefined) return;
    if (answer.kind === "stepped") {
      waiting.stepped?.(answer.done, answer.steps);
      return;
    }
    this.waiting.delete(answer.id);
    if (answer.kind === "failed") waiting.fail(new (ERRORS[answer.name] ?? Error)(answer.message));
    else waiting.done(answer);
  }
}
