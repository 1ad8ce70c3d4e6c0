/** A square to draw in with a finger, a pen or a mouse. */

import type { Point, Stroke } from "../learning/drawing.ts";

/** Width of a line on the screen, in squares. */
const LINE = 0.07;

export class Pad {
  private strokes: Point[][] = [];
  private finger: number | null = null;

  constructor(
    private readonly canvas: HTMLCanvasElement,
    private readonly changed: () => void,
  ) {
    canvas.addEventListener("pointerdown", (event) => {
      if (this.finger !== null) return;
      this.finger = event.pointerId;
      canvas.setPointerCapture(event.pointerId);
      this.strokes.push([]);
      this.follow(event);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (event.pointerId !== this.finger) return;
      // A fast finger has moved on between two frames: all that it has passed is here.
      const passed = event.getCoalescedEvents?.() ?? [];
      for (const each of passed.length ? passed : [event]) this.follow(each);
    });
    for (const end of ["pointerup", "pointercancel"] as const) {
      canvas.addEventListener(end, (event) => {
        if (event.pointerId === this.finger) this.finger = null;
      });
    }
  }

  get drawn(): readonly Stroke[] {
    return this.strokes;
  }

  /** Show a drawing as it was, to be gone on with. */
  show(strokes: readonly Stroke[]): void {
    this.strokes = strokes.map((stroke) => [...stroke]);
    this.paint();
    this.changed();
  }

  /** Forget the drawing, also the line that a finger is in the middle of: another one may have tapped the label. */
  clear(): void {
    this.strokes = [];
    this.finger = null;
    this.paint();
    this.changed();
  }

  private follow(event: PointerEvent): void {
    const box = this.canvas.getBoundingClientRect();
    this.strokes[this.strokes.length - 1].push({
      x: (event.clientX - box.left) / box.width,
      y: (event.clientY - box.top) / box.height,
    });
    this.paint();
    this.changed();
  }

  private paint(): void {
    const context = this.canvas.getContext("2d")!;
    const side = this.canvas.width;
    context.clearRect(0, 0, side, side);
    context.strokeStyle = getComputedStyle(this.canvas).color;
    context.lineWidth = LINE * side;
    context.lineCap = context.lineJoin = "round";
    for (const stroke of this.strokes) {
      context.beginPath();
      // A dot is a line of hardly any length.
      context.moveTo(stroke[0].x * side + 0.1, stroke[0].y * side);
      for (const { x, y } of stroke) context.lineTo(x * side, y * side);
      context.stroke();
    }
  }
}

/** Show pixels from 0 to 255, (28, 28), on a canvas of that size. */
export function show(canvas: HTMLCanvasElement, pixels: Uint8Array | Uint8ClampedArray): void {
  const image = new ImageData(28, 28);
  pixels.forEach((value, i) => image.data.set([value, value, value, 255], 4 * i));
  canvas.getContext("2d")!.putImageData(image, 0, 0);
}
