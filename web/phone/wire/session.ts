/** Who may say what when: the tables of docs/PROTOCOL.md for the two ends of a connection, as a phone sees them. */

import { FaultError } from "../codec/fault.ts";
import { pack, type FromPhone, type FromServer } from "./messages.ts";
import { unpack } from "./reading.ts";

type Track = Record<string, Partial<Record<string, string>>>;

const PHONE: Track = {
  new: { Hello: "ready" },
  ready: { UpdateBegin: "uploading", WholeUpdate: "ready" },
  uploading: { UpdateChunk: "uploading", UpdateBegin: "uploading", WholeUpdate: "ready" },
};

const ANY_TIME = { Finish: "over", Task: "tasked", WholeModel: "idle" };
const SERVER: Track = {
  new: { Welcome: "idle" },
  idle: { ...ANY_TIME, ModelBegin: "sending", Ack: "idle", Accepted: "idle", Cancel: "idle" },
  tasked: { ...ANY_TIME, ModelBegin: "sending", Ack: "tasked", Accepted: "tasked", Cancel: "tasked" },
  sending: { ...ANY_TIME, ModelChunk: "sending", Ack: "sending", Accepted: "sending", Cancel: "sending" },
  over: {},
};

/** One connection's session: raises `FaultError` for what is out of turn, and for bytes with gaps or beyond the end. */
export class Session {
  private phone = "new";
  private server = "new";
  private sent = { next: 0, size: 0 };
  private received = { next: 0, size: 0 };

  /** Return the frame of a message that the phone may say now. */
  send(message: FromPhone): Uint8Array {
    this.phone = turn(PHONE, "phone", this.phone, message.kind);
    if (message.kind === "UpdateBegin") this.sent = { next: message.offset, size: message.size };
    if (message.kind === "UpdateBegin" || message.kind === "UpdateChunk") {
      // The bytes before were sent on an earlier connection where the server has them.
      if (message.kind === "UpdateChunk") this.sent.next = message.offset;
      if (moved(this.sent, message, "update")) this.phone = "ready";
    }
    return pack(message);
  }

  /** Return the message of a frame that has come. */
  receive(frame: Uint8Array): FromServer {
    const message = unpack(frame);
    this.server = turn(SERVER, "server", this.server, message.kind);
    if (message.kind === "ModelBegin") {
      const size = message.lengths.reduce((all, length) => all + length, 0);
      this.received = { next: message.offset, size };
    }
    if (message.kind === "ModelBegin" || message.kind === "ModelChunk") {
      if (moved(this.received, message, "model")) this.server = "idle";
    }
    return message;
  }
}

function turn(track: Track, who: string, state: string, kind: string): string {
  const next = track[state][kind];
  if (next === undefined) throw new FaultError(`${kind} of the ${who} in state ${state} is out of turn`);
  return next;
}

/** Note bytes of a transfer; return whether they are its last. */
function moved(
  at: { next: number; size: number },
  { offset, data }: { offset: number; data: Uint8Array },
  what: string,
): boolean {
  if (offset !== at.next) throw new FaultError(`bytes of the ${what} from ${offset} on, where ${at.next} is next`);
  at.next += data.length;
  if (at.next > at.size) throw new FaultError(`byte ${at.next} of the ${what}, which has ${at.size}`);
  return at.next === at.size;
}
