// Server-sent events of one run: a lost or silent connection is opened again, and begins with the whole run.

const SILENCE_MS = 7000;
const AGAIN_MS = 1500;
const AFTER_THE_END_MS = 15000;

/**
 * @param {string} name
 * @param {(message: any) => void} take gets a snapshot first, and again after every break
 * @param {(connected: boolean) => void} tell
 * @param {() => boolean} over whether nothing more is expected of the run
 */
export function follow(name, take, tell, over) {
  /** @type {EventSource | undefined} */
  let stream;
  /** @type {number | undefined} */
  let timer;

  function wait(ms, then) {
    clearTimeout(timer);
    timer = setTimeout(then, ms);
  }

  /** Perhaps another run is served there now. */
  async function comeBack() {
    wait(SILENCE_MS, comeBack);
    try {
      const listed = await (await fetch("api/runs")).json();
      if (!listed.some((run) => run.name === name)) location.reload();
      open();
    } catch {
      wait(over() ? AFTER_THE_END_MS : AGAIN_MS, comeBack);
    }
  }

  function open() {
    stream?.close();
    stream = new EventSource(`api/runs/${encodeURIComponent(name)}/events`);
    stream.onmessage = (event) => {
      wait(SILENCE_MS, comeBack);
      const message = JSON.parse(event.data);
      tell(true);
      if (message.kind !== "alive") take(message);
    };
    stream.onerror = () => {
      stream?.close();
      tell(false);
      wait(over() ? AFTER_THE_END_MS : AGAIN_MS, comeBack);
    };
    wait(SILENCE_MS, comeBack);
  }

  open();
}
