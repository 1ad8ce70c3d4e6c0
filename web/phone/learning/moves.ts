/** Images that are moved and warped while a phone trains: docs/PROTOCOL.md, "Local training". */

import type { Generator } from "../codec/generator.ts";
import type { Settings } from "../wire/messages.ts";

export interface Moves {
  readonly shift: number;
  readonly warp: number;
  readonly warpEpochs: number;
}

/** Read a problem's own settings. */
export function movesOf(set: Settings): Moves {
  const number = (name: string, usual: number) => {
    const value = set.get(name) ?? usual;
    return typeof value === "number" ? value : usual;
  };
  return { shift: number("shift", 0), warp: number("warp", 0), warpEpochs: number("warp_epochs", 1) };
}

/** Whether an epoch, counted from 0, draws anew. */
export function isDue({ shift, warp, warpEpochs }: Moves, epoch: number): boolean {
  if (warp > 0) return epoch % warpEpochs === 0;
  return shift > 0;
}

/** Return all images moved as `moves` say, (examples, side, side); what comes in is `background`. */
export function moved(
  images: Float32Array,
  side: number,
  background: number,
  { shift, warp }: Moves,
  draws: Generator,
): Float32Array {
  const area = side * side;
  const out = new Float32Array(images.length);
  for (let begin = 0; begin < images.length; begin += area) {
    let image = images.subarray(begin, begin + area);
    if (shift > 0) {
      const down = draws.below(2 * shift + 1) - shift;
      const right = draws.below(2 * shift + 1) - shift;
      image = shifted(image, side, background, down, right);
    }
    if (warp > 0) {
      const [a, b, c] = [draws.random(), draws.random(), draws.random()].map((u) => 2 * u - 1);
      image = warped(image, side, background, warp, a, b, c);
    }
    out.set(image, begin);
  }
  return out;
}

export function shifted(image: Float32Array, side: number, background: number, down: number, right: number) {
  const out = new Float32Array(image.length).fill(background);
  for (let y = Math.max(0, down); y < Math.min(side, side + down); y++) {
    for (let x = Math.max(0, right); x < Math.min(side, side + right); x++) {
      out[y * side + x] = image[(y - down) * side + x - right];
    }
  }
  return out;
}

export function warped(
  image: Float32Array, side: number, background: number, s: number, a: number, b: number, c: number,
) {
  const angle = ((12 * Math.PI) / 180) * s * a;
  const scale = 1 / (1 + 0.1 * s * b);
  const shear = 0.1 * s * c;
  const cos = Math.cos(angle) * scale;
  const sin = Math.sin(angle) * scale;
  const middle = (side - 1) / 2;
  const at = (row: number, column: number) =>
    row >= 0 && row < side && column >= 0 && column < side ? image[row * side + column] : background;
  const out = new Float32Array(image.length);
  for (let row = 0; row < side; row++) {
    for (let column = 0; column < side; column++) {
      const y = row - middle;
      const x = column - middle + shear * y;
      const fromX = cos * x - sin * y + middle;
      const fromY = sin * x + cos * y + middle;
      const left = Math.floor(fromX);
      const top = Math.floor(fromY);
      const u = fromX - left;
      const v = fromY - top;
      out[row * side + column] =
        (1 - v) * ((1 - u) * at(top, left) + u * at(top, left + 1)) +
        v * ((1 - u) * at(top + 1, left) + u * at(top + 1, left + 1));
    }
  }
  return out;
}
