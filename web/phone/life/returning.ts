/** When a phone whose connection has ended comes back: docs/PROTOCOL.md, "After a lost connection". */

import { PAUSED, RESTS, restS } from "../wire/closing.ts";

const FIRST_MS = 500;
const MOST_MS = 30_000;

/**
 * Return after how many milliseconds, and a sentence for people.
 *
 * `failures` are those since the last Welcome; `random` is from 0 to 1.
 */
export function comeBack(
  code: number,
  reason: string,
  failures: number,
  random: number,
): { ms: number; sentence: string } {
  if (code === RESTS) {
    const s = restS(reason);
    const sentence = `not needed for now; the server asks this phone again in about ${Math.round(s)} s`;
    return { ms: 1000 * s, sentence };
  }
  const ms = random * Math.min(MOST_MS, FIRST_MS * 2 ** failures);
  if (code === PAUSED) return { ms, sentence: `the run pauses: ${reason}` };
  return { ms, sentence: reason ? `the connection ended: ${reason}` : "no connection; trying again" };
}
