// What is text: rounds, faults, settings. Everything goes in as text, never as markup.
import { duration, figure, number, size } from "./format.js";
import { setText } from "./fleet.js";
import { parts, valueOf } from "./run.js";

/** What masks have cost both ways. @param {any} row */
const masks = (row) => parts(row.uplink).masks + parts(row.downlink).masks;
const KEPT_ROWS = 500;
/** Name, text and value of each cell of a round's row, beside its number. @param {import("./format.js").Measure[]} measures */
const cellsOf = (measures) => [
  ["updates", (row) => `${row.accepted}/${row.cohort}`, (row) => row.accepted],
  ["late", (row) => row.late, (row) => row.late],
  ...measures.map((measure) => [measure.name, (row) => figure(measure, valueOf(row, measure)), (row) => valueOf(row, measure)]),
  ["seconds", (row) => number(row.seconds, 2), (row) => row.seconds],
  ["up", (row) => size(row.uplink.socket), (row) => row.uplink.socket],
  ["down", (row) => size(row.downlink.socket), (row) => row.downlink.socket],
  ["both", (row) => size(row.socket), (row) => row.socket],
  ["handshakes", (row) => size(row.handshake), (row) => row.handshake],
  ["re-sent", (row) => size(row.uplink.resent + row.downlink.resent), (row) => row.uplink.resent + row.downlink.resent],
  ["wasted", (row) => size(row.uplink.wasted + row.downlink.wasted), (row) => row.uplink.wasted + row.downlink.wasted],
  ["masks", (row) => size(masks(row)), masks],
];

/** Rounds, newest first; a row is changed in place. */
export class RoundsTable {
  /** @param {HTMLElement} body @param {HTMLElement} head the row of its columns' names */
  constructor(body, head) {
    this.body = body;
    this.head = head;
    this.cells = cellsOf([]);
    /** @type {Map<number, HTMLTableRowElement>} */
    this.rows = new Map();
  }

  /** Begin with a run that has these measures. @param {import("./format.js").Measure[]} measures */
  clear(measures) {
    this.cells = cellsOf(measures);
    this.head.replaceChildren(...["round", ...this.cells.map(([name]) => name)].map((name) => {
      const cell = document.createElement("th");
      cell.scope = "col";
      cell.textContent = name;
      return cell;
    }));
    this.body.replaceChildren();
    this.rows.clear();
  }

  /** @param {any[]} rounds that changed, in order */
  show(rounds) {
    for (const round of rounds.slice(-KEPT_ROWS)) {
      const row = this.rows.get(round.round) ?? this.#add(round.round);
      row.dataset.state = round.state;
      this.cells.forEach(([, text, value], index) => {
        const cell = row.cells[index + 1];
        setText(cell, String(text(round)));
        cell.dataset.value = String(value(round));
      });
    }
    while (this.rows.size > KEPT_ROWS) {
      const oldest = Math.min(...this.rows.keys());
      this.rows.get(oldest)?.remove();
      this.rows.delete(oldest);
    }
  }

  #add(number) {
    const row = document.createElement("tr");
    row.dataset.round = String(number);
    const head = document.createElement("th");
    head.scope = "row";
    head.textContent = String(number);
    row.append(head, ...this.cells.map(([name]) => {
      const cell = document.createElement("td");
      cell.dataset.name = name;
      return cell;
    }));
    this.body.prepend(row);
    this.rows.set(number, row);
    return row;
  }
}

/** @param {HTMLElement} list @param {any[]} faults in order */
export function showFaults(list, faults) {
  if (!faults.length) {
    const none = document.createElement("li");
    none.textContent = "None so far.";
    list.replaceChildren(none);
    return;
  }
  list.replaceChildren(...faults.slice(-200).reverse().map((fault) => {
    const item = document.createElement("li");
    const when = document.createElement("span");
    when.textContent = `round ${fault.round}, ${duration(fault.at_s)}, ${fault.code}: `;
    const who = document.createElement("b");
    who.textContent = fault.phone;
    item.append(when, who, ` ${fault.sentence}`);
    return item;
  }));
}

/** @param {HTMLElement} list @param {Record<string, unknown>} settings @param {string} command */
export function showSettings(list, settings, command) {
  list.replaceChildren(...Object.entries(settings).flatMap(([name, value]) => {
    const flag = `--${name.replaceAll("_", "-")}`;
    const term = document.createElement("dt");
    term.textContent = flag;
    const description = document.createElement("dd");
    const own = value !== null && typeof value === "object";
    description.textContent = own ? Object.entries(value).map((pair) => pair.join("=")).join(", ") : String(value);
    description.className = command.includes(`${flag} `) ? "changed" : "";
    return [term, description];
  }));
}
