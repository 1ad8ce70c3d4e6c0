/** What the page and its worker say to each other. */

import type { Tensor } from "../codec/layout.ts";
import type { Description } from "../learning/description.ts";
import type { Job, Trained } from "../learning/round.ts";
import type { Examples } from "../learning/training.ts";

export type Ask =
  | { readonly kind: "train"; readonly id: number; readonly job: Job; readonly examples: Examples }
  | { readonly kind: "stop"; readonly id: number }
  | {
      readonly kind: "guess";
      readonly id: number;
      readonly description: Description;
      readonly layout: readonly Tensor[];
      readonly weights: Float32Array;
      readonly input: Float32Array;
    };

export type Answer =
  | { readonly kind: "stepped"; readonly id: number; readonly done: number; readonly steps: number }
  | { readonly kind: "trained"; readonly id: number; readonly trained: Trained }
  | { readonly kind: "guessed"; readonly id: number; readonly probabilities: Float32Array }
  | { readonly kind: "failed"; readonly id: number; readonly name: string; readonly message: string };
