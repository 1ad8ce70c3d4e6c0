// A canvas that shows the visible part of something long: it is as large as its scroller, and sticks to its top.

/** @returns {Record<string, string>} the page's colours by name */
export function colours() {
  const style = getComputedStyle(document.documentElement);
  const names = ["panel", "line", "grid", "text", "quiet", "accent", "away", "waiting", "downloading", "training",
    "uploading", "accepted", "late", "dropped", "summing", "payload", "framing", "masks", "resent", "wasted", "loss"];
  return Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
}

export const FONT = "12px system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif";

export class Board {
  /**
   * @param {HTMLElement} scroller
   * @param {(pen: CanvasRenderingContext2D, view: {width: number, height: number, top: number}, colour: Record<string, string>) => void} paint
   */
  constructor(scroller, paint) {
    this.scroller = scroller;
    this.paint = paint;
    this.canvas = document.createElement("canvas");
    this.canvas.setAttribute("aria-hidden", "true");
    this.rest = document.createElement("div");
    this.rest.className = "length";
    scroller.append(this.canvas, this.rest);
    this.pen = /** @type {CanvasRenderingContext2D} */ (this.canvas.getContext("2d"));
    this.colour = colours();
    this.width = this.height = this.length = 0;
    this.asked = false;
    new ResizeObserver(() => this.#resize()).observe(scroller);
    scroller.addEventListener("scroll", () => this.draw(), { passive: true });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      this.colour = colours();
      this.draw();
    });
    /** Called when the size has changed, before the next drawing. */
    this.resized = () => {};
  }

  #resize() {
    const { clientWidth: width, clientHeight: height } = this.scroller;
    const ratio = devicePixelRatio;
    if (width === this.width && height === this.height && ratio === this.ratio) return;
    Object.assign(this, { width, height, ratio });
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(height * ratio);
    this.canvas.style.width = `${width}px`;
    this.canvas.style.height = `${height}px`;
    this.resized();
    this.setLength(this.length);
    this.#paint();
  }

  /** @param {number} length of all there is, in pixels */
  setLength(length) {
    this.length = length;
    this.rest.style.height = `${Math.max(0, length - this.height)}px`;
  }

  /** Draw before the browser's next frame, once. */
  draw() {
    if (this.asked) return;
    this.asked = true;
    requestAnimationFrame(() => {
      this.asked = false;
      this.#paint();
    });
  }

  #paint() {
    if (!this.width || !this.height) return;
    this.pen.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    this.pen.clearRect(0, 0, this.width, this.height);
    this.pen.font = FONT;
    this.pen.textBaseline = "middle";
    const top = Math.max(0, Math.min(this.scroller.scrollTop, this.length - this.height));
    this.paint(this.pen, { width: this.width, height: this.height, top }, this.colour);
  }
}

const widths = new Map();

/** Cut text to a width; measuring is slow, so what fits is remembered. */
export function fit(pen, text, width) {
  const key = `${width}|${text}`;
  let cut = widths.get(key);
  if (cut === undefined) {
    cut = text;
    while (cut.length > 1 && pen.measureText(cut).width > width) cut = `${cut.slice(0, cut.endsWith("…") ? -2 : -1)}…`;
    if (widths.size > 20000) widths.clear();
    widths.set(key, cut);
  }
  return cut;
}
