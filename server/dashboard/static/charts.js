// Charts by uPlot: accuracy and loss, and what the bytes of each round were spent on.
import uPlot from "./vendor/uplot.js";
import { colours } from "./board.js";
import { size } from "./format.js";
import { parts } from "./run.js";

const PARTS = ["payload", "framing", "resent", "wasted"];
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
const shares = (plot, values) => values.map((value) => `${Number((100 * value).toPrecision(4))} %`);

class Chart {
  constructor(element, options) {
    this.element = element;
    const { width, height } = this.#room();
    this.plot = new uPlot({ width, height, cursor: { y: false }, ...options }, options.series.map(() => []), element);
    new ResizeObserver(() => this.plot.setSize(this.#room())).observe(element);
  }

  #room() {
    return { width: Math.max(50, this.element.clientWidth), height: Math.max(50, this.element.clientHeight - 24) };
  }
}

const line = (label, name, more) => ({
  label, stroke: () => colour[name], width: 2, points: { show: (plot) => plot.data[0].length <= 40, size: 5 }, ...more,
});

/** Accuracy on the left, loss on the right, by round. */
function byRound(element) {
  return new Chart(element, {
    scales: { x: { time: false }, y: { range: (plot, low, high) => span(low, high, 1) }, loss: { range: (plot, low, high) => span(low, high, Infinity) } },
    axes: [
      axis({ values: whole, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000], size: 26 }),
      axis({ values: shares, size: 52 }),
      axis({ side: 1, scale: "loss", grid: { show: false }, size: 44 }),
    ],
    series: [
      { label: "round" },
      line("accuracy", "accent", { value: (plot, value) => (value == null ? "–" : `${(100 * value).toFixed(2)} %`) }),
      line("loss", "loss", { scale: "loss", dash: [5, 4], value: (plot, value) => (value == null ? "–" : value.toFixed(4)) }),
    ],
  });
}

/** A range with some room, never below 0. */
function span(low, high, most) {
  if (low == null) return [0, 1];
  const room = (high - low || high || 1) * 0.08;
  return [Math.max(0, low - room), Math.min(most, high + room)];
}

function byBytes(element) {
  return new Chart(element, {
    scales: { x: { time: false, range: (plot, low, high) => [0, high || 1] }, y: { range: (plot, low, high) => span(low, high, 1) } },
    axes: [axis({ values: (plot, values) => values.map((value) => size(1e6 * value)), size: 26 }), axis({ values: shares, size: 52 })],
    series: [
      { label: "up", value: (plot, value) => (value == null ? "–" : size(1e6 * value)) },
      line("accuracy", "accent", { value: (plot, value) => (value == null ? "–" : `${(100 * value).toFixed(2)} %`) }),
    ],
  });
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
    this.byRound = byRound(at("chart-round"));
    this.byBytes = byBytes(at("chart-bytes"));
    this.up = bars(at("chart-up"));
    this.down = bars(at("chart-down"));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      colour = colours();
      for (const chart of [this.byRound, this.byBytes, this.up, this.down]) chart.plot.redraw(true, true);
    });
  }

  /** @param {any[]} rounds in order */
  show(rounds) {
    const measured = rounds.filter((row) => row.accuracy !== null);
    this.byRound.plot.setData([
      measured.map((row) => row.round), measured.map((row) => row.accuracy), measured.map((row) => row.loss),
    ]);
    let total = 0;
    const megabytes = rounds.map((row) => (total += row.uplink.socket) / 1e6);
    const at = rounds.map((row, index) => [row, megabytes[index]]).filter(([row]) => row.accuracy !== null);
    this.byBytes.plot.setData([at.map(([, bytes]) => bytes), at.map(([row]) => row.accuracy)]);
    for (const [chart, way] of [[this.up, "uplink"], [this.down, "downlink"]]) {
      const split = rounds.map((row) => parts(row[way]));
      chart.plot.parts = Object.fromEntries(PARTS.map((name) => [name, split.map((each) => each[name])]));
      const sums = PARTS.map((_, upTo) => split.map((each) => PARTS.slice(0, upTo + 1).reduce((sum, name) => sum + each[name], 0)));
      chart.plot.setData([rounds.map((row) => row.round), ...sums.reverse()]);
    }
  }
}
