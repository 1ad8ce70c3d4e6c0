/** What the server says of a problem's model: a chain of layers, or why it is none. docs/BROWSER.md has the format. */

import { FaultError, UnableError } from "../codec/fault.ts";

export type LayerDescription =
  | { readonly kind: "linear"; readonly weight: string; readonly bias: string | null }
  | {
      readonly kind: "conv";
      readonly weight: string;
      readonly bias: string | null;
      readonly stride: readonly [number, number];
      readonly padding: readonly [number, number];
    }
  | { readonly kind: "max"; readonly size: readonly [number, number] }
  | { readonly kind: "relu" }
  | { readonly kind: "flatten" };

/** How a drawing becomes an input: a pixel p from 0 to 255 is (p/255 − mean)/deviation. */
export interface Drawing {
  readonly mean: number;
  readonly deviation: number;
}

export interface Description {
  readonly problem: string;
  /** Channels, height and width of one input. */
  readonly input: readonly [number, number, number];
  readonly classes: number;
  readonly layers: readonly LayerDescription[];
  readonly drawing: Drawing;
  /** Whether the server hands out shards of the bundled digits. */
  readonly digits: boolean;
}

/** Read what the server answers; raises `UnableError` with the server's sentence for a model that is no chain. */
export function describe(answer: unknown): Description {
  const said = answer as Description & { cannot?: string };
  if (typeof said?.cannot === "string") throw new UnableError(said.cannot);
  if (!Array.isArray(said?.layers) || !Array.isArray(said.input)) throw new FaultError("no description of a model");
  return said;
}
