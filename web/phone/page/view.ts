/** What the page shows. Whatever comes from elsewhere is set as text, never as markup. */

import type { Counts } from "../life/memory.ts";
import type { Drawn } from "./database.ts";
import { show } from "./pad.ts";

const NEWEST = 12;

export function find<T extends HTMLElement>(id: string): T {
  const found = document.getElementById(id);
  if (found === null) throw new Error(`the page has no #${id}`);
  return found as T;
}

export function say(id: string, text: string): void {
  find(id).textContent = text;
}

/** Return so many bytes in words: all digits below 10,000, since people count along. */
export function size(bytes: number): string {
  if (bytes < 10_000) return `${bytes} bytes`;
  return bytes < 10_000_000 ? `${(bytes / 1000).toFixed(1)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}

/** Show what stayed and what left; `examples` are in words, like "34 drawings". */
export function showCounts(examples: string, counts: Counts): void {
  say("ledger", `${examples} stayed here; ${size(counts.up)} left`);
  find("counts").hidden = false;
  for (const name of ["payload", "up", "down", "handshakes"] as const) {
    say(name, size(counts[name]));
    find(name).dataset.value = String(counts[name]);
  }
  say("accepted", String(counts.accepted));
  find("accepted").dataset.value = String(counts.accepted);
}

export function showDrawings(drawn: readonly Drawn[]): void {
  const figures = drawn.slice(-NEWEST).reverse().map(({ pixels, label }) => {
    const figure = document.createElement("figure");
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = 28;
    show(canvas, pixels);
    const caption = document.createElement("figcaption");
    caption.textContent = String(label);
    figure.append(canvas, caption);
    return figure;
  });
  find("drawn").replaceChildren(...figures);
}

export function showProgress(share: number | null): void {
  const bar = find<HTMLProgressElement>("progress");
  bar.hidden = share === null;
  bar.value = share ?? 0;
}

/** Show the probabilities of the classes before and after a round's training here. */
export function showGuess(round: number, pixels: Uint8ClampedArray, before: Float32Array, after: Float32Array): void {
  find("guess").hidden = false;
  say("guess-round", `round ${round}: the model as it came, and after it has trained on this phone`);
  show(find<HTMLCanvasElement>("guessed"), pixels);
  const most = after.indexOf(after.reduce((a, b) => Math.max(a, b)));
  const rows = Array.from(after, (_, digit) => {
    const row = document.createElement("tr");
    const head = document.createElement("th");
    head.scope = "row";
    head.textContent = String(digit);
    row.append(head, cell(before[digit], "before"), cell(after[digit], "after"));
    if (digit === most) row.className = "likeliest";
    return row;
  });
  find("probabilities").replaceChildren(...rows);
}

function cell(probability: number, kind: string): HTMLTableCellElement {
  const made = document.createElement("td");
  const percent = (100 * probability).toFixed(1);
  made.className = kind;
  made.title = `${percent} %`;
  made.dataset.value = String(probability);
  const bar = document.createElement("span");
  bar.className = "bar";
  bar.style.width = `${percent}%`;
  const words = document.createElement("span");
  words.textContent = `${percent} %`;
  made.append(bar, words);
  return made;
}
