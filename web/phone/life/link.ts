/** One connection to the server, with what is known on it. */

import { short } from "../wire/closing.ts";
import type { Welcome } from "../wire/messages.ts";
import { Session } from "../wire/session.ts";
import type { Delivery } from "./delivery.ts";
import type { Download } from "./download.ts";
import type { Downlink } from "./downlink.ts";
import type { Connection, Listener } from "./surroundings.ts";

export class Link {
  readonly session = new Session();
  readonly connection: Connection;
  open = false;
  welcome: Welcome | null = null;
  downlink: Downlink | null = null;
  download: Download | null = null;
  delivery: Delivery | null = null;
  /** The version of the last Task or WholeModel. */
  told: number | null = null;
  /** This phone has ended it: what comes of it now says nothing. */
  hungUp = false;

  constructor(connect: (listener: Listener) => Connection, listener: Listener) {
    this.connection = connect(listener);
  }

  /** End it with a code and as much of a sentence as a close frame carries. */
  hangUp(code: number, sentence: string): void {
    this.hungUp = true;
    this.delivery?.stop();
    this.connection.close(code, short(sentence));
  }
}
