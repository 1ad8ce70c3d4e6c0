// The round as a picture: one lane a phone, time from left to right.
import { Board, fit } from "./board.js";
import { duration } from "./format.js";
import { STATES } from "./run.js";

const LANE = 24;
const AXIS = 24;
const BAR = 14;
const [WAITING, ACCEPTED, LATE, DROPPED] = ["waiting", "accepted", "late", "dropped"].map((name) => STATES.indexOf(name));

export class TimelineView {
  /** @param {HTMLElement} scroller */
  constructor(scroller) {
    this.board = new Board(scroller, (pen, view, colour) => this.#paint(pen, view, colour));
    /** @type {import("./run.js").Run | null} */
    this.run = null;
    /** @type {import("./run.js").Timeline | null} */
    this.timeline = null;
    /** @type {[number, [number, number][]][]} */
    this.lanes = [];
  }

  /** Show a round; called whenever something may have changed. */
  show(run, timeline) {
    this.run = run;
    this.timeline = timeline;
    this.lanes = timeline ? [...timeline.lanes].sort((a, b) => a[0] - b[0]) : [];
    this.board.setLength(AXIS + LANE * this.lanes.length + 4);
    this.board.draw();
  }

  /** Seconds since the round's opening. */
  #now() {
    const { run, timeline } = this;
    if (timeline.seconds !== null) return timeline.seconds;
    return Math.max(0, run.now() - timeline.start);
  }

  #paint(pen, view, colour) {
    const labels = Math.min(190, Math.max(104, view.width * 0.22));
    pen.fillStyle = colour.quiet;
    if (!this.timeline || !this.lanes.length) {
      pen.fillText(this.timeline ? "The lanes of this round were not kept." : "No round is open yet.", 8, AXIS);
      return;
    }
    const now = this.#now();
    const [left, right] = [labels, view.width - 14];
    const end = niceEnd(now);
    const x = (s) => left + ((right - left) * Math.min(Math.max(s, 0), end)) / end;
    const first = Math.max(0, Math.floor((view.top - AXIS) / LANE));
    const last = Math.min(this.lanes.length, Math.ceil((view.top + view.height - AXIS) / LANE));
    for (const [at, text] of ticks(end, (right - left) / 64)) {
      pen.fillStyle = colour.grid;
      pen.fillRect(Math.round(x(at)), AXIS - 4, 1, view.height);
      pen.fillStyle = colour.quiet;
      pen.textAlign = at === 0 ? "left" : at >= end ? "right" : "center";
      pen.fillText(text, x(at), 9);
    }
    pen.textAlign = "left";
    pen.save();
    pen.beginPath();
    pen.rect(0, AXIS - 4, view.width, view.height);
    pen.clip();
    for (let row = first; row < last; row += 1) {
      const [shard, lane] = this.lanes[row];
      this.#lane(pen, colour, shard, lane, AXIS + row * LANE - view.top, { x, now, labels, right });
    }
    if (this.timeline.seconds === null) {
      pen.fillStyle = colour.accent;
      pen.fillRect(Math.round(x(now)), AXIS - 4, 1, view.height);
    }
    pen.restore();
  }

  #lane(pen, colour, shard, lane, y, { x, now, labels, right }) {
    const middle = y + LANE / 2;
    const phone = this.run.phones.get(shard);
    pen.fillStyle = colour.text;
    const link = phone?.link ?? "";
    const linkWidth = link && labels > 130 ? 56 : 0;
    pen.fillText(fit(pen, phone?.name ?? `shard ${shard}`, labels - 14 - linkWidth), 4, middle);
    if (linkWidth) {
      pen.fillStyle = colour.quiet;
      pen.fillText(fit(pen, link, linkWidth), labels - linkWidth - 4, middle);
    }
    pen.fillStyle = colour.grid;
    pen.fillRect(labels, Math.round(middle), right - labels, 1);
    lane.forEach(([from, state], index) => {
      const to = index + 1 < lane.length ? lane[index + 1][0] : now;
      const [start, stop] = [x(from), x(to)];
      // A download or an upload that took no time is still seen.
      const width = Math.max(stop - start, state === WAITING ? 0 : 2);
      if (state === WAITING) return;
      if (state === ACCEPTED) tick(pen, colour, start + 3, middle);
      else if (state === DROPPED || state === LATE) hatch(pen, colour[STATES[state]], start, middle, width);
      else {
        pen.fillStyle = colour[STATES[state]];
        pen.fillRect(start, middle - BAR / 2, width, BAR);
      }
    });
  }
}

function tick(pen, colour, x, y) {
  pen.strokeStyle = colour.accepted;
  pen.lineWidth = 2;
  pen.beginPath();
  pen.moveTo(x, y);
  pen.lineTo(x + 3, y + 3.5);
  pen.lineTo(x + 9, y - 4);
  pen.stroke();
}

/** A stretch in which nothing went on: an outline with slashes. */
function hatch(pen, stroke, x, y, width) {
  pen.save();
  pen.beginPath();
  pen.rect(x, y - BAR / 2, width, BAR);
  pen.clip();
  pen.strokeStyle = stroke;
  pen.lineWidth = 1;
  pen.strokeRect(x + 0.5, y - BAR / 2 + 0.5, Math.max(0, width - 1), BAR - 1);
  pen.globalAlpha = 0.6;
  pen.beginPath();
  for (let at = x - BAR; at < x + width; at += 6) {
    pen.moveTo(at, y + BAR / 2);
    pen.lineTo(at + BAR, y - BAR / 2);
  }
  pen.stroke();
  pen.restore();
}

/** A step of 1, 2 or 5 times a power of ten that gives at most `most` steps to `end`. */
function step(end, most) {
  const power = 10 ** Math.floor(Math.log10(end / most));
  return [1, 2, 5, 10].map((factor) => factor * power).find((each) => end / each <= most) ?? 10 * power;
}

/** The end of the axis: it grows in steps, so that lanes do not shrink all the time. */
function niceEnd(now) {
  const least = Math.max(now * 1.02, 0.5);
  const by = step(least, 8);
  return Math.ceil(least / by) * by;
}

/** @returns {[number, string][]} */
function ticks(end, most) {
  const by = step(end, Math.min(6, Math.max(2, Math.floor(most))));
  const found = [];
  for (let at = 0; at <= end + by / 1000; at += by) found.push([at, at === 0 ? "0" : label(at, by)]);
  return /** @type {[number, string][]} */ (found);
}

function label(at, by) {
  if (at >= 60) return duration(at);
  return `${at.toFixed(by < 0.1 ? 2 : by < 1 ? 1 : 0)} s`;
}
