// Numbers for people. Sizes are powers of 1000, as in `fl-server report`.

const SIZES = ["B", "kB", "MB", "GB", "TB"];

/** @param {number} bytes */
export function size(bytes) {
  let power = 0;
  while (Math.abs(bytes) >= 999.5 && power < SIZES.length - 1) {
    bytes /= 1000;
    power += 1;
  }
  return `${power === 0 ? Math.round(bytes) : Number(bytes.toPrecision(3))} ${SIZES[power]}`;
}

/** @param {number} bytesPerS */
export const rate = (bytesPerS) => `${size(bytesPerS)}/s`;

/** Goodput against what the link can carry, in one unit: 21/31 kB/s. */
export function ratio(bytesPerS, linkBytesPerS) {
  const [scale, unit] = linkBytesPerS < 1e6 ? [1e3, "kB/s"] : [1e6, "MB/s"];
  const two = (/** @type {number} */ value) => Number((value / scale).toPrecision(2));
  return `${two(bytesPerS)}/${two(linkBytesPerS)} ${unit}`;
}

/** @param {number | null} share 0 to 1 */
export const percent = (share, digits = 2) => (share === null ? "–" : `${(100 * share).toFixed(digits)} %`);

/** @param {number | null} value */
export const number = (value, digits = 4) => (value === null ? "–" : value.toFixed(digits));

/** @typedef {{name: string, higher_is_better: boolean, fraction: boolean}} Measure see server/measures.py */

/** A value of a measure: fractions as %, other numbers plain. @param {Measure} measure @param {number | null} value */
export function figure(measure, value) {
  if (value === null) return "–";
  return measure.fraction ? percent(value) : plain(value);
}

/** @param {number} value */
export function plain(value) {
  const size = Math.abs(value);
  return size === 0 || (size >= 1e-3 && size < 1e3) ? value.toFixed(4) : String(Number(value.toPrecision(5)));
}

/** @param {number} s seconds */
export function duration(s) {
  if (s < 60) return `${s.toFixed(1)} s`;
  const whole = Math.floor(s);
  const [hours, minutes, seconds] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const two = (/** @type {number} */ n) => String(n).padStart(2, "0");
  return hours ? `${hours}:${two(minutes)}:${two(seconds)} h` : `${minutes}:${two(seconds)} min`;
}
