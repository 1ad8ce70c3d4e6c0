/** The network of a browser: a WebSocket to the server that the page came from. */

import type { Connection, Listener, Network } from "../life/surroundings.ts";
import { PROTOCOL_FAULT } from "../wire/closing.ts";

/** So long a door may take to say why nobody gets in. */
const ANSWER_MS = 10_000;

export class BrowserNetwork implements Network {
  constructor(
    private readonly token: string,
    private readonly origin: string,
  ) {}

  connect(listener: Listener): Connection {
    // A page can send no header of its own: the token is offered as a subprotocol, and the other one is answered.
    const offered = ["featherfed", ...(this.token ? [`bearer.${this.token}`] : [])];
    const socket = new WebSocket(`${this.origin.replace(/^http/, "ws")}/`, offered);
    socket.binaryType = "arraybuffer";
    socket.onopen = () => listener.opened();
    socket.onmessage = ({ data }: MessageEvent<unknown>) => {
      if (data instanceof ArrayBuffer) listener.came(new Uint8Array(data));
      else socket.close(PROTOCOL_FAULT, "a text frame");
    };
    socket.onclose = ({ code, reason }) => listener.closed(code, reason);
    return {
      get buffered() {
        return socket.bufferedAmount;
      },
      send: (frame) => {
        // One that is closing takes nothing any more: what it was for is asked again on the next.
        if (socket.readyState === WebSocket.OPEN) socket.send(frame as Uint8Array<ArrayBuffer>);
      },
      close: (code, reason) => socket.close(code, reason),
    };
  }

  /** Ask the same door in HTTP, whose answers a page may read. */
  async refusal(): Promise<string | null> {
    try {
      const answer = await this.fetch("/phone/model.json", AbortSignal.timeout(ANSWER_MS));
      return answer.status === 401 ? (await answer.text()).trim() : null;
    } catch {
      return null;
    }
  }

  fetch(path: string, signal: AbortSignal | null = null): Promise<Response> {
    const headers: Record<string, string> = this.token ? { Authorization: `Bearer ${this.token}` } : {};
    return fetch(path, { headers, cache: "no-store", signal });
  }
}
