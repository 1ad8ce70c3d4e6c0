// The phones as tiles. Only what is seen is drawn, so a thousand scroll as ten do.
import { Board, fit } from "./board.js";
import { duration, rate, ratio, size } from "./format.js";
import { STATES } from "./run.js";

const HEIGHT = 56;
const GAP = 6;
const LEAST = 132;
const UPLOADING = STATES.indexOf("uploading");
const ACCEPTED = STATES.indexOf("accepted");

export class FleetView {
  /**
   * @param {HTMLElement} scroller
   * @param {HTMLElement} words says in text what the chosen tile shows
   * @param {HTMLElement} legend
   */
  constructor(scroller, words, legend) {
    this.scroller = scroller;
    this.words = words;
    /** @type {import("./run.js").Run | null} */
    this.run = null;
    /** @type {number[]} shards in order */
    this.order = [];
    this.chosen = -1;
    this.board = new Board(scroller, (pen, view, colour) => this.#paint(pen, view, colour));
    this.board.resized = () => this.#measure();
    scroller.addEventListener("click", (event) => this.#click(event));
    scroller.addEventListener("keydown", (event) => this.#key(event));
    this.counts = STATES.slice(1).map((name, index) => {
      const item = document.createElement("li");
      const swatch = document.createElement("span");
      swatch.className = "swatch";
      swatch.dataset.state = name;
      const count = document.createElement("b");
      count.id = `count-${name}`;
      item.append(swatch, count, ` ${name}`);
      legend.append(item);
      return { state: index + 1, count };
    });
  }

  show(run, fleetChanged) {
    this.run = run;
    if (fleetChanged || this.order.length !== run.phones.size) {
      this.order = [...run.phones.keys()].sort((a, b) => a - b);
      this.#measure();
    }
    const counts = new Array(STATES.length).fill(0);
    for (const phone of run.phones.values()) counts[phone.state] += 1;
    for (const { state, count } of this.counts) setText(count, String(counts[state]));
    this.#say();
    this.board.draw();
    return counts;
  }

  #measure() {
    this.columns = Math.max(1, Math.floor((this.board.width + GAP) / (LEAST + GAP)));
    this.tile = (this.board.width - GAP * (this.columns - 1)) / this.columns;
    this.board.setLength(Math.ceil(this.order.length / this.columns) * (HEIGHT + GAP));
  }

  #paint(pen, view, colour) {
    if (!this.order.length) {
      pen.fillStyle = colour.quiet;
      pen.fillText("No phone has come yet.", 4, 20);
      return;
    }
    const first = Math.floor(view.top / (HEIGHT + GAP)) * this.columns;
    const rows = Math.ceil(view.height / (HEIGHT + GAP)) + 1;
    const last = Math.min(this.order.length, first + rows * this.columns);
    for (let index = first; index < last; index += 1) {
      const x = (index % this.columns) * (this.tile + GAP);
      const y = Math.floor(index / this.columns) * (HEIGHT + GAP) - view.top;
      this.#tile(pen, colour, this.run.phones.get(this.order[index]), x, y, index === this.chosen);
    }
  }

  #tile(pen, colour, phone, x, y, chosen) {
    const tone = colour[STATES[phone.state]];
    const width = this.tile;
    pen.fillStyle = tone;
    pen.globalAlpha = 0.13;
    pen.fillRect(x, y, width, HEIGHT);
    pen.globalAlpha = 1;
    pen.fillRect(x, y, 4, HEIGHT);
    if (chosen) {
      pen.strokeStyle = colour.accent;
      pen.lineWidth = 2;
      pen.strokeRect(x + 1, y + 1, width - 2, HEIGHT - 2);
    }
    const room = width - 18;
    const linkWidth = phone.link ? Math.min(room * 0.45, 62) : 0;
    pen.fillStyle = colour.text;
    pen.fillText(fit(pen, phone.name, room - linkWidth - 4), x + 10, y + 12);
    pen.fillStyle = colour.quiet;
    if (linkWidth) {
      pen.textAlign = "right";
      pen.fillText(fit(pen, phone.link, linkWidth), x + width - 8, y + 12);
      pen.textAlign = "left";
    }
    pen.fillText(fit(pen, `↑ ${size(phone.up)}  ↓ ${size(phone.down)}`, room), x + 10, y + 46);
    pen.fillStyle = tone;
    pen.fillText(fit(pen, activity(phone), room), x + 10, y + 29);
    if (phone.state === UPLOADING || phone.state === ACCEPTED) {
      pen.fillRect(x + 4, y + HEIGHT - 3, (width - 4) * (phone.state === ACCEPTED ? 1 : phone.progress), 3);
    }
  }

  #click(event) {
    const box = this.scroller.getBoundingClientRect();
    const column = Math.floor((event.clientX - box.left) / (this.tile + GAP));
    const row = Math.floor((event.clientY - box.top + this.scroller.scrollTop) / (HEIGHT + GAP));
    this.#choose(row * this.columns + column);
  }

  #key(event) {
    const page = Math.max(1, Math.floor(this.board.height / (HEIGHT + GAP))) * this.columns;
    const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: this.columns, ArrowUp: -this.columns, PageDown: page,
      PageUp: -page, Home: -this.order.length, End: this.order.length };
    const by = steps[event.key];
    if (by === undefined || !this.order.length) return;
    event.preventDefault();
    // The first arrow chooses the first phone, whatever its direction.
    const to = this.chosen < 0 && event.key.startsWith("Arrow") ? 0 : this.chosen + by;
    this.#choose(Math.min(this.order.length - 1, Math.max(0, to)));
    const top = Math.floor(this.chosen / this.columns) * (HEIGHT + GAP);
    if (top < this.scroller.scrollTop) this.scroller.scrollTop = top;
    const below = top + HEIGHT - this.board.height;
    if (below > this.scroller.scrollTop) this.scroller.scrollTop = below;
  }

  #choose(index) {
    if (index < 0 || index >= this.order.length) return;
    this.chosen = index;
    this.#say();
    this.board.draw();
  }

  #say() {
    const phone = this.run?.phones.get(this.order[this.chosen]);
    if (!phone) return;
    const on = phone.link ? ` on ${phone.link}${phone.linkRate ? ` (${rate(phone.linkRate)} up)` : ""}` : "";
    const link = phone.link === "browser" ? " in a browser" : on;
    const last = phone.rate && phone.state !== UPLOADING ? `, last upload at ${rate(phone.rate)}` : "";
    const since = this.run.running && phone.since ? ` for ${duration(Math.max(0, this.run.now() - phone.since))}` : "";
    setText(this.words, `${phone.name}, shard ${phone.shard}${link}: ${activity(phone)}${since}${last};`
      + ` ${size(phone.up)} up, ${size(phone.down)} down`);
  }
}

/** What a phone is doing, in a few words. */
function activity(phone) {
  if (phone.state !== UPLOADING) return STATES[phone.state];
  const goodput = !phone.rate ? "" : phone.linkRate ? ratio(phone.rate, phone.linkRate) : rate(phone.rate);
  return `${Math.round(100 * phone.progress)} %${goodput && ` · ${goodput}`}`;
}

/** Change text only where it differs: a screen reader must not hear the same again. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
