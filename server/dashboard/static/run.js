// What the page knows of a run: a snapshot, and the changes that were applied to it. See server/dashboard/view.py.

export const STATES = ["away", "waiting", "downloading", "training", "uploading", "accepted", "late", "dropped", "summing"];

/** @typedef {{shard: number, name: string, link: string, linkRate: number, state: number, since: number,
 *             progress: number, rate: number, up: number, down: number}} Phone */
/** @typedef {{round: number, start: number, seconds: number | null, lanes: Map<number, [number, number][]>}} Timeline */

/** @returns {Timeline} */
export function timelineOf(sent) {
  const lanes = new Map(Object.entries(sent.lanes).map(([shard, lane]) => [Number(shard), lane]));
  return { round: sent.round, start: sent.start_s, seconds: sent.seconds, lanes };
}

export class Run {
  constructor(snapshot) {
    this.about = snapshot.about;
    /** @type {Map<number, any>} by number */
    this.rounds = new Map();
    /** @type {Map<number, Phone>} by shard */
    this.phones = new Map();
    /** @type {any[]} */
    this.faults = [];
    /** @type {Timeline | null} */
    this.timeline = snapshot.timeline && timelineOf(snapshot.timeline);
    this.apply(snapshot);
  }

  /** Take in what is new; return which parts of the page it concerns. */
  apply(change) {
    this.standing = change.standing;
    this.heard = performance.now();
    for (const row of change.rounds) this.rounds.set(row.round, row);
    for (const [shard, name, link, linkRate] of change.fleet) {
      const known = this.phones.get(shard) ?? { state: 0, since: 0, progress: 0, rate: 0, up: 0, down: 0 };
      this.phones.set(shard, { ...known, shard, name, link, linkRate });
    }
    for (const [shard, state, since, progress, rate, up, down] of change.phones) {
      Object.assign(this.phones.get(shard), { state, since, progress, rate, up, down });
    }
    if (change.kind === "snapshot") this.faults = change.faults;
    else if (change.faults.length) this.faults = [...this.faults, ...change.faults];
    if (change.kind === "change" && change.timeline) this.#extend(timelineOf(change.timeline));
    return { rounds: change.rounds.length > 0, fleet: change.fleet.length > 0, faults: change.faults.length > 0 };
  }

  /** @param {Timeline} news */
  #extend(news) {
    if (this.timeline?.round !== news.round) {
      this.timeline = news;
      return;
    }
    this.timeline.start = news.start;
    this.timeline.seconds = news.seconds;
    for (const [shard, lane] of news.lanes) {
      this.timeline.lanes.set(shard, [...(this.timeline.lanes.get(shard) ?? []), ...lane]);
    }
  }

  /** Whether the run goes on in this server. */
  get running() {
    return ["gathering", "open", "closing"].includes(this.standing.phase);
  }

  /** Seconds of the run's clock, as well as is known. */
  now() {
    const since = this.running ? (performance.now() - this.heard) / 1000 : 0;
    return this.standing.clock_s + Math.min(since, 3);
  }

  /** Rounds in order. */
  ordered() {
    return [...this.rounds.values()].sort((a, b) => a.round - b.round);
  }
}

/** What a round's evaluation says, null without one. @param {any} row @param {import("./format.js").Measure} measure */
export function valueOf(row, measure) {
  if (measure.name === "loss") return row.loss;
  return Object.hasOwn(row.metrics, measure.name) ? row.metrics[measure.name] : null;
}

/** What the socket's bytes were spent on; the parts are disjoint. */
export function parts(traffic) {
  return {
    payload: traffic.payload - traffic.resent - traffic.wasted - traffic.points,
    framing: traffic.socket - traffic.payload - traffic.masks,
    masks: traffic.masks + traffic.points,
    resent: traffic.resent,
    wasted: traffic.wasted,
  };
}
