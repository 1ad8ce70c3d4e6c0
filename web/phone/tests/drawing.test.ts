/** What becomes of a drawing. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { SIDE } from "../learning/digits.ts";
import { raster, type Stroke } from "../learning/drawing.ts";

/** A square with its corner at (x, y). */
const square = (x: number, y: number, side: number): Stroke[] => [
  [{ x, y }, { x: x + side, y }, { x: x + side, y: y + side }, { x, y: y + side }, { x, y }],
];

/** Rows and columns that have ink, and the centre of mass. */
function extent(pixels: Uint8Array) {
  const rows: number[] = [];
  const columns: number[] = [];
  let mass = 0, mx = 0, my = 0;
  pixels.forEach((value, i) => {
    const [row, column] = [Math.floor(i / SIDE), i % SIDE];
    if (value > 127) { rows.push(row); columns.push(column); }
    mass += value; mx += value * column; my += value * row;
  });
  const span = (of: number[]) => Math.max(...of) - Math.min(...of) + 1;
  return { height: span(rows), width: span(columns), x: mx / mass, y: my / mass };
}

test("a drawing fills the box of 20×20 whatever its size and place, with lines as thick", () => {
  const [large, small] = [square(0.1, 0.1, 0.8), square(0.7, 0.05, 0.2)].map((strokes) => raster(strokes)!);
  for (const pixels of [large, small]) {
    const { height, width, x, y } = extent(pixels);
    assert.ok(Math.abs(height - 20) <= 1 && Math.abs(width - 20) <= 1, `${height}×${width}`);
    assert.ok(Math.abs(x - 13.5) < 0.01 && Math.abs(y - 13.5) < 0.01);
  }
  large.forEach((value, i) => assert.ok(Math.abs(value - small[i]) <= 2));
});

test("the centre of mass is in the middle, and not that of the box", () => {
  const seven: Stroke[] = [[{ x: 0.3, y: 0.1 }, { x: 0.7, y: 0.1 }, { x: 0.4, y: 0.9 }]];
  const { x, y } = extent(raster(seven)!);
  assert.ok(Math.abs(x - 13.5) < 0.2 && Math.abs(y - 13.5) < 0.2, `${x}, ${y}`);
});

test("a line is a line and a dot a dot, and nothing is nothing", () => {
  assert.ok(extent(raster([[{ x: 0.5, y: 0.1 }, { x: 0.5, y: 0.9 }]])!).width <= 4);
  const dot = extent(raster([[{ x: 0.9, y: 0.9 }]])!);
  assert.ok(dot.width <= 4 && dot.height <= 4);
  assert.equal(raster([]), null);
});
