// Charts by uPlot: the first metric and the loss, and what the bytes of each round were spent on.
import uPlot from "./vendor/uplot.js";
import { colours } from "./board.js";
import { figure, plain, size } from "./format.js";
import { parts, valueOf } from "./run.js";

const PARTS = ["payload", "framing", "masks", "resent", "wasted"];
let colour = colours();

const axis = (more) => ({
  stroke: () => colour.quiet,
  grid: { stroke: () => colour.grid, width: 1 },
  ticks: { show: false },
  font: "11px system-ui, sans-serif",
  gap: 4,
  size: 34,
  ...more,
});
/** Round numbers: whole ones, and only those that were played. */
const whole = (plot, values) => {
  const last = plot.data[0].at(-1) ?? 0;
  return values.map((value) => (Number.isInteger(value) && value >= 1 && value <= last ? String(value) : ""));
};
/** @param {import("./format.js").Measure} measure */
const marks = (measure) => (plot, values) => values.map((value) => (
  measure.fraction ? `${Number((100 * value).toPrecision(4))} %` : String(Number(value.toPrecision(4)))
));

class Chart {
  constructor(element, options) {
    this.element = element;
    const { width, height } = this.#room();
    this.plot = new uPlot({ width, height, cursor: { y: false }, ...options }, options.series.map(() => []), element);
    this.resized = new ResizeObserver(() => this.plot.setSize(this.#room()));
    this.resized.observe(element);
  }

  remove() {
    this.resized.disconnect();
    this.plot.destroy();
  }

  #room() {
    return { width: Math.max(50, this.element.clientWidth), height: Math.max(50, this.element.clientHeight - (this.element.classList.contains("bars") ? 56 : 24)) };
  }
}

const line = (label, name, more) => ({
  label, stroke: () => colour[name], width: 2, points: { show: (plot) => plot.data[0].length <= 40, size: 5 }, ...more,
});

/** A measure's line, on a scale that a fraction does not leave. @param {import("./format.js").Measure} measure */
const measureLine = (measure) => line(measure.name, "accent", { value: (plot, value) => figure(measure, value ?? null) });
const measureScale = (measure) => ({ range: (plot, low, high) => span(low, high, measure.fraction ? 1 : Infinity) });

/** The first measure on the left, by round, and the loss on the right where that is another. */
function byRound(element, first) {
  const alone = first.name === "loss";
  return new Chart(element, {
    scales: {
      x: { time: false }, y: measureScale(first),
      ...(alone ? {} : { loss: { range: (plot, low, high) => span(low, high, Infinity) } }),
    },
    axes: [
      axis({ values: whole, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000], size: 26 }),
      axis({ values: marks(first), size: 52 }),
      ...(alone ? [] : [axis({ side: 1, scale: "loss", grid: { show: false }, size: 44 })]),
    ],
    series: [
      { label: "round" },
      measureLine(first),
      ...(alone ? [] : [line("loss", "loss", { scale: "loss", dash: [5, 4], value: (plot, value) => (value == null ? "–" : plain(value)) })]),
    ],
  });
}

/** A range with some room, not below 0 where no value is. */
function span(low, high, most) {
  if (low == null) return [0, 1];
  const room = (high - low || Math.abs(high) || 1) * 0.08;
  return [low < 0 ? low - room : Math.max(0, low - room), Math.min(most, high + room)];
}

/** What the first measure is drawn against: bytes of all phones until then, the sum before its parts. */
const WAYS = [["both ways", (row) => row.socket, "accent"], ["up", (row) => row.uplink.socket, "uploading"], ["down", (row) => row.downlink.socket, "downloading"]];

function byBytes(element, first) {
  return new Chart(element, {
    scales: { x: { time: false, distr: 3, range: decades }, y: measureScale(first) },
    axes: [axis({ splits: steps, filter: (plot, values) => values, values: (plot, values) => values.map(size), size: 26 }), axis({ values: marks(first), size: 52 })],
    series: [
      { label: "bytes", value: (plot, value) => (value == null ? "–" : size(value)) },
      ...WAYS.map(([label, , name], index) => line(label, name, {
        ...(index ? { width: 1.5, dash: index === 1 ? [5, 4] : [2, 3] } : {}), spanGaps: true,
        value: (plot, value) => figure(first, value ?? null),
      })),
    ],
  });
}

/** A range of a logarithmic axis with some room; of nothing, one decade. */
function decades(plot, low, high) {
  return low > 0 && high > 0 ? [low / 1.3, high * 1.3] : [1, 10];
}

/** Whole decades of a range, and 2 and 5 times them where they are few. */
function steps(plot, index, low, high) {
  const decades = Math.log10(high / low);
  const all = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power += 1) {
    for (const times of decades < 2 ? [1, 2, 5] : [1]) all.push(times * 10 ** power);
  }
  return all.filter((each) => each >= low && each <= high);
}

/** Stacked bars: each series is drawn as the sum of itself and those below, the highest first. */
function bars(element) {
  element.classList.add("bars");
  const paths = uPlot.paths.bars({ size: [0.8, 40], align: 0 });
  return new Chart(element, {
    scales: { x: { time: false, range: (plot, low, high) => [(low ?? 1) - 0.6, (high ?? 1) + 0.6] }, y: { range: (plot, low, high) => [0, (high || 1) * 1.05] } },
    axes: [
      axis({ values: whole, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000], size: 26 }),
      axis({ values: (plot, values) => values.map((value) => size(value)), size: 56 }),
    ],
    series: [
      { label: "round" },
      ...[...PARTS].reverse().map((name) => ({
        label: name === "resent" ? "re-sent" : name,
        stroke: () => colour[name], fill: () => colour[name], width: 0, paths, points: { show: false },
        value: (plot, value, series, index) => (index == null ? "–" : size(plot.parts?.[name][index] ?? 0)),
      })),
    ],
  });
}

export class Charts {
  constructor() {
    const at = (id) => /** @type {HTMLElement} */ (document.getElementById(id));
    /** @type {import("./format.js").Measure[]} */
    this.measures = [];
    /** @type {Chart | null} */
    this.byRound = null;
    /** @type {Chart | null} */
    this.byBytes = null;
    this.up = bars(at("chart-up"));
    this.down = bars(at("chart-down"));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      colour = colours();
      for (const chart of [this.byRound, this.byBytes, this.up, this.down]) chart?.plot.redraw(true, true);
    });
  }

  /** Draw these measures from now on, the first before all; none: a run without evaluation. */
  measure(measures) {
    if (JSON.stringify(measures) === JSON.stringify(this.measures)) return;
    this.measures = measures;
    this.byRound?.remove();
    this.byBytes?.remove();
    const at = (id) => /** @type {HTMLElement} */ (document.getElementById(id));
    const [first] = measures;
    this.byRound = first ? byRound(at("chart-round"), first) : null;
    this.byBytes = first ? byBytes(at("chart-bytes"), first) : null;
  }

  /** @param {any[]} rounds in order */
  show(rounds) {
    if (this.byRound && this.byBytes) this.#showMeasures(rounds);
    for (const [chart, way] of [[this.up, "uplink"], [this.down, "downlink"]]) {
      const split = rounds.map((row) => parts(row[way]));
      chart.plot.parts = Object.fromEntries(PARTS.map((name) => [name, split.map((each) => each[name])]));
      const sums = PARTS.map((_, upTo) => split.map((each) => PARTS.slice(0, upTo + 1).reduce((sum, name) => sum + each[name], 0)));
      chart.plot.setData([rounds.map((row) => row.round), ...sums.reverse()]);
    }
  }

  /** @param {any[]} rounds in order */
  #showMeasures(rounds) {
    const [first] = this.measures;
    const at = rounds
      .map((row) => ({ row, value: valueOf(row, first) }))
      .filter(({ row, value }) => value !== null || row.loss !== null);
    const values = at.map(({ value }) => value);
    const losses = first.name === "loss" ? [] : [at.map(({ row }) => row.loss)];
    this.byRound?.plot.setData([at.map(({ row }) => row.round), values, ...losses]);
    this.byBytes?.plot.setData(uPlot.join(WAYS.map(([, bytesOf]) => {
      let total = 0;
      const points = rounds.map((row) => [total += bytesOf(row), valueOf(row, first)]).filter(([bytes, value]) => bytes > 0 && value !== null);
      return [points.map(([bytes]) => bytes), points.map(([, value]) => value)];
    })));
  }
}
