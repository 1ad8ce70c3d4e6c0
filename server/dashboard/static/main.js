// The page: one run, live or finished. What comes from the server goes to the views four times a second.
import { Charts } from "./charts.js";
import { follow } from "./feed.js";
import { FleetView, setText } from "./fleet.js";
import { duration, figure, size } from "./format.js";
import { Run, STATES, timelineOf, valueOf } from "./run.js";
import { RoundsTable, showFaults, showSettings } from "./tables.js";
import { TimelineView } from "./timeline.js";

const at = (id) => /** @type {HTMLElement} */ (document.getElementById(id));
const TONES = { done: "good", stored: "", paused: "bad", gathering: "busy", open: "busy", closing: "busy" };
const WORDS = { gathering: "waiting for phones", open: "live", closing: "live", done: "done", paused: "paused", stored: "stored" };

const charts = new Charts();
const timeline = new TimelineView(at("timeline"));
const fleet = new FleetView(at("fleet"), at("phone"), at("legend"));
const rounds = new RoundsTable(at("rounds"), at("rounds-head"));

/** @type {Run | null} */
let run = null;
let connected = false;
/** @type {import("./run.js").Timeline | null} a round that is looked at, while newer ones go on */
let looked = null;

function take(message) {
  if (message.kind === "snapshot") {
    run = new Run(message);
    rounds.clear(run.about.measures);
    showAbout();
    charts.measure(run.about.measures);
    showAll({ rounds: true, fleet: true, faults: true }, message.rounds);
  } else if (run) {
    showAll(run.apply(message), message.rounds);
  }
}

function showAbout() {
  const { about } = run;
  const { settings } = about;
  document.title = `${about.name} – featherfed`;
  setText(at("run-name"), about.name);
  setText(at("summary"), `${settings.problem}, ${about.parameters.toLocaleString("en")} parameters (${settings.partition});`
    + ` up ${settings.uplink}; down ${settings.downlink}`);
  setText(at("command"), about.command);
  showSettings(at("settings"), settings, about.command);
  // A run whose problem has no test set has no measures.
  const [first] = about.measures;
  for (const id of ["fact-measure", "by-round-panel", "by-bytes-panel"]) at(id).hidden = !first;
  if (!first) return;
  setText(at("fact-measure-name"), first.name);
  setText(at("by-round"), first.name === "loss" ? "loss by round" : `${first.name} and loss by round`);
  setText(at("by-bytes"), `${first.name} by bytes, both ways`);
}

function showAll(changed, rows) {
  if (changed.rounds) {
    charts.show(run.ordered());
    rounds.show([...rows].sort((a, b) => a.round - b.round));
  }
  if (changed.faults || !run.faults.length) showFaults(at("faults"), run.faults);
  const counts = fleet.show(run, changed.fleet);
  showFacts(counts);
  showPhase();
  showTimeline();
}

function showFacts(counts) {
  const { standing, about } = run;
  const ordered = run.ordered();
  const current = ordered.at(-1);
  const sum = (bytesOf) => ordered.reduce((total, row) => total + bytesOf(row), 0);
  setText(at("fact-round"), `${standing.round} of ${about.rounds}`);
  setText(at("fact-updates"), standing.cohort ? `${standing.accepted} of ${standing.cohort} updates${standing.attempt ? `, attempt ${standing.attempt + 1}` : ""}` : "");
  showMeasures(ordered);
  showPrivacy(ordered);
  setText(at("fact-both"), size(sum((row) => row.socket)));
  const handshakes = `handshakes ${size(sum((row) => row.handshake))}`;
  setText(at("fact-handshakes"), handshakes);
  at("fact-handshakes").title = `${handshakes}, beside the sum: WebSocket upgrade, Hello and Welcome, once a connection`;
  for (const [id, way] of [["fact-up", "uplink"], ["fact-down", "downlink"]]) {
    setText(at(id), size(sum((row) => row[way].socket)));
    setText(at(`${id}-round`), current ? `${size(current[way].socket)} in round ${current.round}` : "");
  }
  setText(at("fact-phones"), about.live ? `${standing.connected} of ${about.phones}` : `${run.phones.size}`);
  const busy = counts.map((count, state) => [count, STATES[state]]).filter(([count, name]) => count && name !== "away" && name !== "waiting");
  setText(at("fact-states"), busy.map(([count, name]) => `${count} ${name}`).join(", "));
  showTime();
}

/** What differential privacy has cost the phone that has paid most, where the run has some. */
function showPrivacy(ordered) {
  const { dp, target_epsilon: target } = run.about.settings;
  at("fact-privacy").hidden = !dp;
  const charged = ordered.findLast((row) => row.epsilon != null);
  setText(at("fact-epsilon"), `ε ${charged ? charged.epsilon.toPrecision(3) : 0}`);
  setText(at("fact-budget"), target ? `of ${target}` : "");
}

function showMeasures(ordered) {
  const [first, ...others] = run.about.measures;
  if (!first) return;
  const measured = ordered.findLast((row) => row.loss !== null || Object.keys(row.metrics).length);
  const more = others.map((measure) => measured && `${measure.name} ${figure(measure, valueOf(measured, measure))}`);
  setText(at("fact-measure-value"), measured ? figure(first, valueOf(measured, first)) : "–");
  const words = measured ? more.join(", ") : "not measured yet";
  setText(at("fact-measure-more"), words);
  at("fact-measure-more").title = words;
}

function showTime() {
  if (!run) return;
  setText(at("fact-time"), duration(run.now()));
  const closed = run.ordered().filter((row) => row.seconds !== null);
  const mean = closed.reduce((sum, row) => sum + row.seconds, 0) / closed.length;
  setText(at("fact-round-time"), closed.length ? `${duration(mean)} a round` : "");
}

function showPhase() {
  const pill = at("phase");
  const lost = !connected && run && run.standing.phase !== "done";
  const phase = run?.standing.phase ?? "gathering";
  setText(pill, lost ? "reconnecting" : run ? WORDS[phase] : "connecting");
  pill.title = run?.standing.reason ?? "";
  pill.dataset.tone = lost ? "bad" : TONES[phase];
}

function showTimeline() {
  const shown = looked ?? run.timeline;
  timeline.show(run, shown);
  const title = !shown ? "Round" : shown.seconds === null
    ? `Round ${shown.round}, under way` : `Round ${shown.round}, ${duration(shown.seconds)}`;
  setText(at("timeline-title"), title);
  const newest = run.timeline?.round ?? 0;
  /** @type {HTMLButtonElement} */ (at("round-back")).disabled = !shown || shown.round <= 1;
  /** @type {HTMLButtonElement} */ (at("round-next")).disabled = !shown || shown.round >= newest;
  at("round-follow").setAttribute("aria-pressed", String(!looked));
}

/** Look at another round; where its lanes were not kept, its place is shown empty. */
async function look(round) {
  if (!run || round < 1) return;
  if (round >= (run.timeline?.round ?? 0)) looked = null;
  else {
    const answer = await fetch(`api/runs/${encodeURIComponent(run.about.name)}/timeline/${round}`);
    looked = answer.ok ? timelineOf(await answer.json()) : { round, start: 0, seconds: run.rounds.get(round)?.seconds ?? 0, lanes: new Map() };
  }
  showTimeline();
}

at("round-back").addEventListener("click", () => look(((looked ?? run?.timeline)?.round ?? 0) - 1));
at("round-next").addEventListener("click", () => look(((looked ?? run?.timeline)?.round ?? 0) + 1));
at("round-follow").addEventListener("click", () => {
  looked = null;
  if (run) showTimeline();
});
at("copy").addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText(at("command").textContent ?? "");
    setText(at("copy"), "copied");
  } catch {
    // Without leave to write there (a page that is not on loopback or https), the text is chosen for the user's own copy.
    getSelection()?.selectAllChildren(at("command"));
  }
  setTimeout(() => setText(at("copy"), "copy"), 1500);
});

// Between two messages only the clock goes on.
setInterval(() => {
  if (run?.running && connected && !document.hidden) {
    showTime();
    if (!looked) timeline.board.draw();
  }
}, 250);

async function start() {
  let listed;
  try {
    listed = await (await fetch("api/runs")).json();
  } catch {
    setTimeout(start, 1500);
    return;
  }
  const asked = new URLSearchParams(location.search).get("run");
  const chosen = listed.find((each) => each.name === asked) ?? listed.at(-1);
  if (!chosen) return;
  if (listed.length > 1) {
    at("runs").hidden = false;
    at("runs").replaceChildren(...[...listed].reverse().map((each) => {
      const link = document.createElement("a");
      link.href = `?run=${encodeURIComponent(each.name)}`;
      link.textContent = `${each.name} · ${each.closed}/${each.rounds}${each.best === null ? "" : ` · ${figure(each.measure, each.best)}`}`;
      if (each === chosen) link.setAttribute("aria-current", "page");
      return link;
    }));
  }
  follow(chosen.name, take, (answers) => {
    connected = answers;
    if (run) showPhase();
  }, () => run?.standing.phase === "done");
}

start();
