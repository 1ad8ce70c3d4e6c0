/** What a phone keeps to lose nothing when it is killed: docs/PROTOCOL.md, "What a phone keeps". */

import type { Tensor } from "../codec/layout.ts";

export interface Update {
  readonly round: number;
  readonly payload: Uint8Array;
  readonly examples: number;
}

/** Bytes of whole frames' contents, Hello and Welcome apart, as the server's ledger counts them under `message`. */
export interface Counts {
  readonly up: number;
  readonly down: number;
  readonly handshakes: number;
  /** Updates that were accepted, and their bytes without the message around them. */
  readonly accepted: number;
  readonly payload: number;
}

export interface Memory {
  /** The phone's name; empty until it has one. */
  readonly name: string;
  readonly run: string;
  readonly shard: number;
  readonly tensors: readonly Tensor[];
  readonly model: { readonly version: number; readonly weights: Float32Array } | null;
  /** Version 0, only where the downlink's differences are to it. */
  readonly origin: Float32Array | null;
  readonly partial: { readonly digest: Uint8Array; readonly data: Uint8Array } | null;
  readonly finished: (Update & { readonly residual: Float32Array | null }) | null;
  readonly accepted: Update | null;
  readonly residual: Float32Array | null;
  readonly counts: Counts;
}

export const NO_COUNTS: Counts = { up: 0, down: 0, handshakes: 0, accepted: 0, payload: 0 };
/** What belongs to a run. */
export const NO_RUN: Omit<Memory, "name"> = {
  run: "", shard: -1, tensors: [], model: null, origin: null, partial: null, finished: null, accepted: null,
  residual: null, counts: NO_COUNTS,
};
export const EMPTY: Memory = { name: "", ...NO_RUN };

/** Where it is kept: what one `save` brings is there together, or not at all, when the phone is killed. */
export interface Store {
  load(): Promise<Partial<Memory>>;
  save(changes: Partial<Memory>): Promise<void>;
}
