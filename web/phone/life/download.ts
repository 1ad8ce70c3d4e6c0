/** One model on its way down, from whatever byte the phone has already. */

import { FaultError } from "../codec/fault.ts";
import { digestOf, same } from "../wire/digest.ts";
import type { ModelBegin } from "../wire/messages.ts";
import type { Downlink } from "./downlink.ts";
import type { Memory } from "./memory.ts";

export class Download {
  private readonly data: Uint8Array;
  private got: number;

  /** `kept` are the bytes of a download that broke off. */
  constructor(
    readonly begin: ModelBegin,
    readonly downlink: Downlink,
    kept: Memory["partial"],
  ) {
    this.data = new Uint8Array(begin.lengths.reduce((all, length) => all + length, 0));
    this.got = begin.offset;
    if (begin.offset > 0) {
      if (kept === null || !same(kept.digest, begin.digest) || kept.data.length < begin.offset) {
        throw new FaultError(`a model from byte ${begin.offset} on, which this phone has not kept`);
      }
      this.data.set(kept.data.subarray(0, begin.offset));
    }
    this.add(begin.data);
  }

  add(data: Uint8Array): void {
    this.data.set(data, this.got);
    this.got += data.length;
  }

  get whole(): boolean {
    return this.got === this.data.length;
  }

  /** Whether the bytes are those that were announced. */
  get right(): boolean {
    return same(digestOf(this.data), this.begin.digest);
  }

  get partial(): NonNullable<Memory["partial"]> {
    return { digest: this.begin.digest, data: this.data.slice(0, this.got) };
  }

  get parts(): Uint8Array[] {
    let at = 0;
    return this.begin.lengths.map((length) => this.data.subarray(at, (at += length)));
  }
}
