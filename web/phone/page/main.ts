/** The page: its owner's drawings, its one phone, and what both are told. */

import { UnableError } from "../codec/fault.ts";
import { describe, type Description } from "../learning/description.ts";
import { bundled, normalised, SIDE } from "../learning/digits.ts";
import { raster } from "../learning/drawing.ts";
import type { Examples } from "../learning/training.ts";
import { EMPTY, NO_RUN, type Memory } from "../life/memory.ts";
import { Phone } from "../life/phone.ts";
import type { Place, Watcher } from "../life/surroundings.ts";
import { Awake } from "./awake.ts";
import { Database, type Choice, type Drawn } from "./database.ts";
import { Pad } from "./pad.ts";
import { BrowserNetwork } from "./socket.ts";
import { WorkerTrainer } from "./trainer.ts";
import { find, say, showCounts, showDrawings, showGuess, showProgress } from "./view.ts";

const fragment = new URLSearchParams(location.hash.slice(1));
const network = new BrowserNetwork(fragment.get("token") ?? "", location.origin);
/** A token is for a name, or for all that begin as what stands before its star. */
const pattern = fragment.get("name") ?? "browser-*";

class Page {
  private phone: Phone | null = null;
  private memory: Memory = EMPTY;
  private digits: { readonly of: string; readonly examples: Examples } | null = null;
  private release: () => void = () => undefined;
  private readonly awake = new Awake(() => this.phone?.wake());
  private readonly trainer = new WorkerTrainer((place) => this.examples(place));

  constructor(
    private readonly database: Database,
    private readonly description: Description,
    private drawn: Drawn[],
    private choice: Choice,
  ) {
    this.drawing();
    find("join").onclick = () => this.join("drawn");
    find("emulate").onclick = () => this.join("digits");
    find("leave").onclick = () => this.leave("you have left the run; what this phone holds is kept");
    window.addEventListener("offline", () => this.phone?.lost());
    window.addEventListener("online", () => this.phone?.wake());
    this.shown();
  }

  /** Take up what was begun before this page was loaded. */
  async begin(): Promise<void> {
    this.memory = { ...EMPTY, ...(await this.database.load()) };
    if (this.choice.joined) await this.join(this.choice.source);
    else say("says", "draw some digits, and take part");
    this.shown();
  }

  async leave(sentence: string): Promise<void> {
    this.choice = { ...this.choice, joined: false };
    await this.stop(sentence);
    await this.kept(() => this.database.choose(this.choice));
  }

  /** Have something kept, and say where that cannot be; returns whether it was. */
  private async kept(keep: () => Promise<void>): Promise<boolean> {
    try {
      await keep();
      return true;
    } catch (error) {
      say("says", `this browser keeps nothing more: ${error instanceof Error ? error.message : String(error)}`);
      return false;
    }
  }

  async stop(sentence: string): Promise<void> {
    const { phone } = this;
    this.phone = null;
    this.rest();
    await phone?.leave(sentence);
  }

  private rest(): void {
    this.release();
    this.awake.rest();
    showProgress(null);
    this.shown();
  }

  private drawing(): void {
    find("drawing").hidden = false;
    const buttons = Array.from({ length: this.description.classes }, (_, label) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = String(label);
      button.onclick = () => this.labelled(pad, label);
      return button;
    });
    const pad = new Pad(find("pad"), () => {
      for (const button of [...buttons, find<HTMLButtonElement>("clear")]) button.disabled = pad.drawn.length === 0;
    });
    find("labels").replaceChildren(...buttons);
    find("clear").onclick = () => pad.clear();
    find("undo").onclick = async () => {
      await this.kept(() => this.changed(this.database.undraw()));
    };
    pad.clear();
  }

  private async labelled(pad: Pad, label: number): Promise<void> {
    const pixels = raster(pad.drawn);
    if (pixels === null) return;
    const strokes = pad.drawn;
    pad.clear();
    const kept = await this.kept(() => this.changed(this.database.draw({ label, pixels, strokes })));
    // Its owner may make room, and name it again.
    if (!kept && pad.drawn.length === 0) pad.show(strokes);
  }

  /** Show the drawings that are there after a change of them. */
  private async changed(change: Promise<void>): Promise<void> {
    await change;
    this.drawn = await this.database.drawings();
    this.shown();
  }

  private async join(source: Choice["source"]): Promise<void> {
    if (this.phone !== null) return;
    this.choice = { joined: true, source };
    const name = this.name();
    const watcher = this.watcher(() => this.phone === phone);
    const phone: Phone = new Phone({
      store: this.database, network, trainer: this.trainer, watcher, description: this.description, link: "browser",
      clock: {
        after(ms, call) {
          const timer = setTimeout(call, ms);
          return () => clearTimeout(timer);
        },
        random: Math.random,
      },
    });
    this.phone = phone;
    this.release = takeOver(() => void this.stop("this phone goes on in another tab"));
    const kept = await this.kept(async () => {
      await this.database.choose(this.choice);
      if (this.memory.name !== "" && this.memory.name !== name) await this.database.save({ ...NO_RUN, name });
    });
    if (!kept) {
      this.phone = null;
      this.rest();
      return;
    }
    if (this.phone !== phone) return;
    this.awake.keep();
    await phone.start(name);
    this.shown();
  }

  /** Return the name that this phone has had, if its token still opens for it, or a new one. */
  private name(): string {
    const had = this.memory.name;
    if (!pattern.endsWith("*")) return pattern;
    const begin = pattern.slice(0, -1);
    if (had.startsWith(begin) && had.length > begin.length) return had;
    const drawn = crypto.getRandomValues(new Uint8Array(4));
    return begin + Array.from(drawn, (byte) => byte.toString(16).padStart(2, "0")).join("");
  }

  /** `current` says whether the phone that it is for is still the page's. */
  private watcher(current: () => boolean): Watcher {
    return {
      says: (sentence, over) => {
        say("says", sentence);
        if (over !== true || !current()) return;
        // It does no more by itself: its owner may have it try again.
        this.phone = null;
        this.rest();
      },
      progress: (_, done, of) => showProgress(done < of ? done / of : null),
      kept: (memory) => {
        this.memory = memory;
        this.shown();
      },
      trained: (round, weights) => void this.guess(round, weights),
    };
  }

  private async examples(place: Place): Promise<Examples> {
    const { drawing } = this.description;
    if (this.choice.source === "digits") {
      const of = `${this.memory.run}/${place.shard}`;
      if (this.digits?.of !== of) {
        const answer = await network.fetch(`/phone/digits/${place.shard}`);
        if (!answer.ok) throw new Error((await answer.text()).trim());
        const examples = bundled(new Uint8Array(await answer.arrayBuffer()), drawing, place.maxExamples);
        this.digits = { of, examples };
      }
      return this.digits.examples;
    }
    const drawn = this.drawn.slice(-place.maxExamples);
    if (!drawn.length) throw new UnableError("there are no drawings to learn from");
    const inputs = new Float32Array(drawn.length * SIDE * SIDE);
    drawn.forEach(({ pixels }, i) => inputs.set(normalised(pixels, drawing), i * SIDE * SIDE));
    return { inputs, targets: Uint8Array.from(drawn, ({ label }) => label) };
  }

  private async guess(round: number, after: Float32Array): Promise<void> {
    const { model, tensors } = this.memory;
    const { drawing } = this.description;
    const newest = this.drawn.at(-1);
    const input = newest ? normalised(newest.pixels, drawing) : this.digits?.examples.inputs;
    if (model === null || input === undefined) return;
    const one = input.slice(0, SIDE * SIDE);
    const guess = (weights: Float32Array) => this.trainer.guess(this.description, tensors, weights, one);
    const pixels = Uint8ClampedArray.from(one, (x) => (x * drawing.deviation + drawing.mean) * 255);
    showGuess(round, pixels, await guess(model.weights), await guess(after));
  }

  private shown(): void {
    const joined = this.phone !== null;
    const join = find<HTMLButtonElement>("join");
    join.hidden = find("emulate").hidden = joined;
    find("emulate").hidden ||= !this.description.digits;
    join.disabled = this.drawn.length === 0;
    find("leave").hidden = !joined;
    find<HTMLButtonElement>("undo").disabled = this.drawn.length === 0;
    showDrawings(this.drawn);
    const digits = this.choice.source === "digits" ? this.digits?.examples.targets.length : undefined;
    const examples = digits === undefined ? count(this.drawn.length, "drawing") : count(digits, "bundled digit");
    showCounts(examples, this.memory.counts);
  }
}

function count(number: number, thing: string): string {
  return `${number} ${thing}${number === 1 ? "" : "s"}`;
}

function refused(sentence: string): void {
  say("refused", sentence);
  find("refused").hidden = false;
  say("says", "this browser takes no part");
}

/** Return what the server says of its model; null where it says that nothing can come of it. */
async function described(): Promise<Description | null> {
  for (;;) {
    let answer: Response;
    try {
      answer = await network.fetch("/phone/model.json");
    } catch {
      say("says", "the server does not answer; trying again");
      await new Promise((next) => setTimeout(next, 2000));
      continue;
    }
    try {
      if (!answer.ok) throw new UnableError((await answer.text()).trim());
      return describe(await answer.json());
    } catch (error) {
      refused(error instanceof Error ? error.message : String(error));
      return null;
    }
  }
}

/** Have this tab be the browser's phone, and others no more: all of them would be one. Returns what gives it up. */
function takeOver(lost: () => void): () => void {
  let release = () => {};
  const held = new Promise<void>((done) => (release = done));
  navigator.locks?.request("featherfed-phone", { steal: true }, () => held).catch(lost);
  return release;
}

/** What somebody types or pastes as another run's address; without a scheme it has this page's. */
function addressOf(typed: string): URL | null {
  const text = typed.trim();
  // Browsers differ in whether a host may have a space.
  if (/\s/.test(text)) return null;
  try {
    const address = new URL(/^[a-z]+:\/\//i.test(text) ? text : `${location.protocol}//${text}`);
    return /^https?:$/.test(address.protocol) ? address : null;
  } catch {
    return null;
  }
}

async function main(): Promise<void> {
  let page: Page | null = null;
  let forgetting = false;
  find("forget").onclick = async () => {
    if (!confirm("Forget all drawings, and all that this phone holds?")) return;
    forgetting = true;
    await page?.leave("forgotten");
    await Database.forget();
    location.reload();
  };
  find("other").onclick = () => {
    find("elsewhere").hidden = false;
    find("address").focus();
  };
  find("address").oninput = () => find<HTMLInputElement>("address").setCustomValidity("");
  find<HTMLFormElement>("elsewhere").onsubmit = async (event) => {
    event.preventDefault();
    const field = find<HTMLInputElement>("address");
    const address = addressOf(field.value);
    field.setCustomValidity(address === null ? "This is no address of a run, like https://192.0.2.7:8765/" : "");
    if (address === null) {
      field.reportValidity();
      return;
    }
    await page?.leave("you have left the run");
    location.assign(address);
    // Another token at the same place is only another fragment.
    if (address.origin === location.origin) location.reload();
  };
  const description = await described();
  if (description === null) return;
  say("problem", description.problem);
  const database = await Database.open(() => {
    // What another tab has forgotten is not to be shown here, and cannot be kept.
    if (!forgetting) location.reload();
  });
  page = new Page(database, description, await database.drawings(), await database.choice());
  await page.begin();
}

main().catch((error: unknown) => {
  refused(`this page failed: ${error instanceof Error ? error.message : String(error)}`);
});
