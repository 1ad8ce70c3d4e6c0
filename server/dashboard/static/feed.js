// Server-sent events of one run: a lost or silent connection is opened again, and begins with the whole run.

const SILENCE_MS = 7000;
const AGAIN_MS = 1500;
const AFTER_THE_END_MS = 15000;
const MOST_SILENCE_MS = 60000;

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

  // Twice as long after each time that nothing came: on a slow link, or from a busy server, the whole run takes longer
  // than news do, and who begins it again each time never has it.
  let silenceMs = SILENCE_MS;
  // Of the questions that are under way; the first answer is for all of them.
  let asked = {};

  function wait(ms, then) {
    clearTimeout(timer);
    timer = setTimeout(then, ms);
  }

  function silent() {
    silenceMs = Math.min(2 * silenceMs, MOST_SILENCE_MS);
    tell(false);
    comeBack();
  }

  /** Perhaps another run is served there now. */
  async function comeBack() {
    wait(silenceMs, silent);
    const question = asked;
    try {
      // The cache would have one wait for the answer to another, which may be lost.
      const listed = await (await fetch("api/runs", { cache: "no-store" })).json();
      if (question !== asked) return;
      asked = {};
      if (!listed.some((run) => run.name === name)) location.reload();
      open();
    } catch {
      if (question === asked) wait(over() ? AFTER_THE_END_MS : AGAIN_MS, comeBack);
    }
  }

  function open() {
    stream?.close();
    stream = new EventSource(`api/runs/${encodeURIComponent(name)}/events`);
    stream.onmessage = (event) => {
      silenceMs = SILENCE_MS;
      wait(silenceMs, silent);
      const message = JSON.parse(event.data);
      tell(true);
      if (message.kind !== "alive") take(message);
    };
    stream.onerror = () => {
      stream?.close();
      tell(false);
      wait(over() ? AFTER_THE_END_MS : AGAIN_MS, comeBack);
    };
    wait(silenceMs, silent);
  }

  open();
}
