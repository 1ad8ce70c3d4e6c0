/** One update on its way up, from whatever byte the server has already. */

import { FaultError } from "../codec/fault.ts";
import { digestOf } from "../wire/digest.ts";
import type { FromPhone } from "../wire/messages.ts";
import type { Update } from "./memory.ts";
import type { Clock, Connection } from "./surroundings.ts";

/**
 * Few enough that a link which breaks often loses little, and more than the least that is always right. Browsers send
 * messages of more than 64 KiB in fragments, which the protocol has not.
 */
const CHUNK_BYTES = 16384;
/** So much may wait in the socket: a Cancel is heard before all has left. */
const AHEAD_BYTES = 32768;
const LOOK_MS = 20;

export class Delivery {
  private next = 0;
  private asking = false;
  private begun = false;
  private stopped = false;

  constructor(
    private readonly about: { readonly update: Update; readonly chunkBytes: number; readonly maxExamples: number },
    private readonly connection: Connection,
    private readonly clock: Clock,
    private readonly send: (message: FromPhone) => void,
  ) {}

  /** Send it from its first byte on; in one message where it fits. */
  begin(): void {
    const { update, maxExamples } = this.about;
    if (update.payload.length > this.most) {
      this.pump();
      return;
    }
    this.next = update.payload.length;
    const examples = update.examples === maxExamples ? 0 : update.examples;
    this.send({ kind: "WholeUpdate", round: update.round, data: update.payload, examples });
  }

  /** Ask how much of these very bytes is there. */
  ask(): void {
    this.asking = true;
    this.sendBegin(new Uint8Array(0));
  }

  /** The server has so many bytes; raises `FaultError` where there are not so many. */
  acked(offset: number): void {
    const { length } = this.about.update.payload;
    if (offset > length) throw new FaultError(`${offset} bytes of an update of ${length} are there`);
    if (!this.asking) return;
    this.asking = false;
    this.next = offset;
    this.pump();
  }

  stop(): void {
    this.stopped = true;
  }

  /** How many bytes of it one message has at most. */
  private get most(): number {
    return Math.min(CHUNK_BYTES, this.about.chunkBytes);
  }

  private sendBegin(data: Uint8Array): void {
    const { round, payload, examples } = this.about.update;
    this.begun = true;
    this.next = data.length;
    this.send({
      kind: "UpdateBegin", round, size: payload.length, digest: digestOf(payload), examples, offset: 0, data,
    });
  }

  private pump(): void {
    const { payload } = this.about.update;
    while (!this.stopped && this.next < payload.length) {
      if (this.connection.buffered > AHEAD_BYTES) {
        this.clock.after(LOOK_MS, () => this.pump());
        return;
      }
      const data = payload.subarray(this.next, this.next + this.most);
      if (!this.begun) {
        this.sendBegin(data);
      } else {
        const offset = this.next;
        this.next += data.length;
        this.send({ kind: "UpdateChunk", offset, data });
      }
    }
  }
}
