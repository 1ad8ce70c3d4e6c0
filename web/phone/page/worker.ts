/** Trains beside the page, so that it stays answerable: a message in, a message out. */

import { Network } from "../learning/network.ts";
import { work } from "../learning/round.ts";
import { StoppedError } from "../learning/training.ts";
import type { Answer, Ask } from "./work.ts";

const stopped = new Set<number>();
const say = (answer: Answer) => postMessage(answer);
/** So long a run of steps goes by before a message can be heard. */
const TURN_MS = 50;

async function answer(ask: Ask): Promise<void> {
  switch (ask.kind) {
    case "stop":
      stopped.add(ask.id);
      return;
    case "guess": {
      const network = new Network(ask.description, ask.layout);
      network.weights.set(ask.weights);
      say({ kind: "guessed", id: ask.id, probabilities: network.probabilities(ask.input) });
      return;
    }
    case "train": {
      let turn = performance.now();
      const trained = await work(ask.job, ask.examples, {
        async stepped(done, steps) {
          if (performance.now() - turn > TURN_MS || done === steps) {
            say({ kind: "stepped", id: ask.id, done, steps });
            await new Promise((next) => setTimeout(next, 0));
            turn = performance.now();
          }
          if (stopped.has(ask.id)) throw new StoppedError("stopped");
        },
      });
      say({ kind: "trained", id: ask.id, trained });
    }
  }
}

onmessage = ({ data }: MessageEvent<Ask>) => {
  answer(data).catch((error: unknown) => {
    const { name, message } = error instanceof Error ? error : new Error(String(error));
    say({ kind: "failed", id: data.id, name, message });
  });
};
