/**
 * What a finger has drawn as MNIST has its digits: in a box of 20×20 pixels, its centre of mass in the middle of
 * 28×28.
 *
 * Strokes are scaled before they are thickened, so that a small digit has lines as thick as a large one.
 */

import { SIDE } from "./digits.ts";

export interface Point {
  readonly x: number;
  readonly y: number;
}
export type Stroke = readonly Point[];

const BOX = 20;
/** Half of a line's width, in pixels, about what MNIST's pens have. */
const RADIUS = 1.15;
/** A dot is not blown up to a disc of the whole box: so large a drawing, in canvases, is the least that fills it. */
const LEAST = 0.15;

/** Return pixels from 0 to 255, (28, 28), of strokes in a canvas of side 1; null of nothing. */
export function raster(strokes: readonly Stroke[]): Uint8Array | null {
  const points = strokes.flat();
  if (!points.length) return null;
  const [left, right] = bounds(points.map(({ x }) => x));
  const [top, bottom] = bounds(points.map(({ y }) => y));
  const scale = (BOX - 2 * RADIUS) / Math.max(right - left, bottom - top, LEAST);
  const middle = (SIDE - 1) / 2;
  const placed = (dx: number, dy: number) =>
    strokes.map((stroke) =>
      stroke.map(({ x, y }) => ({
        x: (x - (left + right) / 2) * scale + middle + dx,
        y: (y - (top + bottom) / 2) * scale + middle + dy,
      })),
    );
  const { x, y } = centre(filled(placed(0, 0)));
  return filled(placed(middle - x, middle - y));
}

function bounds(values: number[]): [number, number] {
  return [values.reduce((a, b) => Math.min(a, b)), values.reduce((a, b) => Math.max(a, b))];
}

/** Return the centre of mass. */
function centre(pixels: Uint8Array): Point {
  let mass = 0;
  let x = 0;
  let y = 0;
  pixels.forEach((value, i) => {
    mass += value;
    x += value * (i % SIDE);
    y += value * Math.floor(i / SIDE);
  });
  return { x: x / mass, y: y / mass };
}

function filled(strokes: readonly Stroke[]): Uint8Array {
  const out = new Uint8Array(SIDE * SIDE);
  for (const stroke of strokes) {
    stroke.forEach((to, i) => line(out, stroke[Math.max(i - 1, 0)], to));
  }
  return out;
}

/** Draw a line with round ends; a pixel at its edge is as bright as it is covered. */
function line(out: Uint8Array, from: Point, to: Point): void {
  const reach = RADIUS + 1;
  const dx = to.x - from.x;
  const dy = to.y - from.y;
  const length = dx * dx + dy * dy;
  for (let y = clip(Math.floor(Math.min(from.y, to.y) - reach)); y <= clip(Math.max(from.y, to.y) + reach); y++) {
    for (let x = clip(Math.floor(Math.min(from.x, to.x) - reach)); x <= clip(Math.max(from.x, to.x) + reach); x++) {
      const t = length === 0 ? 0 : Math.min(Math.max(((x - from.x) * dx + (y - from.y) * dy) / length, 0), 1);
      const distance = Math.hypot(x - from.x - t * dx, y - from.y - t * dy);
      const covered = Math.min(Math.max(RADIUS + 0.5 - distance, 0), 1);
      const at = y * SIDE + x;
      out[at] = Math.max(out[at], Math.round(255 * covered));
    }
  }
}

function clip(place: number): number {
  return Math.min(Math.max(place, 0), SIDE - 1);
}
