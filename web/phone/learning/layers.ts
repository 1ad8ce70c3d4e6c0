/**
 * The layers of a chain, forwards and backwards, on batches whose channels are last in memory.
 *
 * Each remembers of its forward pass what its backward pass needs. Backward passes write gradients of weights to the
 * layer's places in the gradient's vector, and return that of the inputs.
 */

import { product, transposed } from "./matrix.ts";

/** A batch: (examples, height, width, channels); what is flat has a height and width of 1. */
export interface Batch {
  readonly data: Float32Array;
  readonly examples: number;
  readonly height: number;
  readonly width: number;
  readonly channels: number;
}

export interface Layer {
  forward(batch: Batch): Batch;
  /** `first` layers need no gradient of their inputs. */
  backward(gradient: Float32Array, first: boolean): Float32Array;
}

/** Weights (out, in) and biases (out) with their gradients, views of the model's vectors. */
export interface Weights {
  readonly weight: Float32Array;
  readonly bias: Float32Array | null;
  readonly weightGradient: Float32Array;
  readonly biasGradient: Float32Array | null;
}

/** Rows times weights plus bias: what linear layers and convolutions both are. */
function affine(rows: Float32Array, count: number, weight: Float32Array, bias: Float32Array | null, inputs: number) {
  const outputs = weight.length / inputs;
  const out = product(rows, weight, count, outputs, inputs);
  if (bias) for (let i = 0; i < out.length; i++) out[i] += bias[i % outputs];
  return out;
}

function biasGradient(gradient: Float32Array, out: Float32Array): void {
  const sums = new Float64Array(out.length);
  for (let i = 0; i < gradient.length; i++) sums[i % out.length] += gradient[i];
  out.set(sums);
}

export class Linear implements Layer {
  private rows: Float32Array = new Float32Array(0);
  private examples = 0;

  constructor(
    private readonly own: Weights,
    private readonly inputs: number,
    private readonly outputs: number,
  ) {}

  forward(batch: Batch): Batch {
    this.rows = batch.data;
    this.examples = batch.examples;
    const data = affine(batch.data, batch.examples, this.own.weight, this.own.bias, this.inputs);
    return { data, examples: batch.examples, height: 1, width: 1, channels: this.outputs };
  }

  backward(gradient: Float32Array, first: boolean): Float32Array {
    const { examples, inputs, outputs, own } = this;
    const across = transposed(gradient, examples, outputs);
    own.weightGradient.set(product(across, transposed(this.rows, examples, inputs), outputs, inputs, examples));
    if (own.biasGradient) biasGradient(gradient, own.biasGradient);
    if (first) return gradient;
    return product(gradient, transposed(own.weight, outputs, inputs), examples, inputs, outputs);
  }
}

export interface Kernel {
  readonly inputs: number;
  readonly outputs: number;
  readonly height: number;
  readonly width: number;
  readonly stride: readonly [number, number];
  readonly padding: readonly [number, number];
}

/** A cross-correlation, padded with zeros, as a product of patches (a row for each output pixel) with the kernels. */
export class Convolution implements Layer {
  private patches: Float32Array = new Float32Array(0);
  private batch: Batch = { data: new Float32Array(0), examples: 0, height: 0, width: 0, channels: 0 };
  private outHeight = 0;
  private outWidth = 0;

  constructor(
    private readonly own: Weights,
    private readonly kernel: Kernel,
  ) {}

  forward(batch: Batch): Batch {
    const { kernel } = this;
    this.batch = batch;
    this.outHeight = Math.floor((batch.height + 2 * kernel.padding[0] - kernel.height) / kernel.stride[0]) + 1;
    this.outWidth = Math.floor((batch.width + 2 * kernel.padding[1] - kernel.width) / kernel.stride[1]) + 1;
    const count = batch.examples * this.outHeight * this.outWidth;
    const length = kernel.height * kernel.width * kernel.inputs;
    this.patches = new Float32Array(count * length);
    this.eachRow((patch, image, run) => {
      for (let i = 0; i < run; i++) this.patches[patch + i] = batch.data[image + i];
    });
    const data = affine(this.patches, count, this.channelsLast(), this.own.bias, length);
    return { data, examples: batch.examples, height: this.outHeight, width: this.outWidth, channels: kernel.outputs };
  }

  backward(gradient: Float32Array, first: boolean): Float32Array {
    const { kernel, batch, own } = this;
    const count = batch.examples * this.outHeight * this.outWidth;
    const length = kernel.height * kernel.width * kernel.inputs;
    const across = transposed(gradient, count, kernel.outputs);
    const kernels = product(across, transposed(this.patches, count, length), kernel.outputs, length, count);
    this.eachWeight((torch, last) => (own.weightGradient[torch] = kernels[last]));
    if (own.biasGradient) biasGradient(gradient, own.biasGradient);
    if (first) return gradient;
    const kernelsAcross = transposed(this.channelsLast(), kernel.outputs, length);
    const back = product(gradient, kernelsAcross, count, length, kernel.outputs);
    const out = new Float32Array(batch.data.length);
    this.eachRow((patch, image, run) => {
      for (let i = 0; i < run; i++) out[image + i] += back[patch + i];
    });
    return out;
  }

  /** Return the kernels, (out, height, width, in) of the model's (out, in, height, width). */
  private channelsLast(): Float32Array {
    const out = new Float32Array(this.own.weight.length);
    this.eachWeight((torch, last) => (out[last] = this.own.weight[torch]));
    return out;
  }

  private eachWeight(visit: (torch: number, last: number) => void): void {
    const { inputs, outputs, height, width } = this.kernel;
    const area = height * width;
    let torch = 0;
    for (let o = 0; o < outputs; o++) {
      for (let c = 0; c < inputs; c++) {
        for (let p = 0; p < area; p++) visit(torch++, (o * area + p) * inputs + c);
      }
    }
  }

  /** Visit each run of a patch's row that lies in the image: where it begins in both, and its length. */
  private eachRow(visit: (patch: number, image: number, run: number) => void): void {
    const { kernel, batch } = this;
    const { height, width, channels } = batch;
    const length = kernel.height * kernel.width * channels;
    let patch = 0;
    for (let example = 0; example < batch.examples; example++) {
      for (let y = 0; y < this.outHeight; y++) {
        const top = y * kernel.stride[0] - kernel.padding[0];
        for (let x = 0; x < this.outWidth; x++, patch += length) {
          const left = x * kernel.stride[1] - kernel.padding[1];
          const from = Math.max(left, 0);
          const to = Math.min(left + kernel.width, width);
          if (to <= from) continue;
          for (let row = 0; row < kernel.height; row++) {
            if (top + row < 0 || top + row >= height) continue;
            const image = ((example * height + top + row) * width + from) * channels;
            visit(patch + (row * kernel.width + from - left) * channels, image, (to - from) * channels);
          }
        }
      }
    }
  }
}

/** The largest of each window; windows do not overlap, and what fills none is left out. */
export class Max implements Layer {
  private chosen = new Int32Array(0);
  private inputs = 0;

  constructor(private readonly size: readonly [number, number]) {}

  forward({ data, examples, height, width, channels }: Batch): Batch {
    const outHeight = Math.floor(height / this.size[0]);
    const outWidth = Math.floor(width / this.size[1]);
    const out = new Float32Array(examples * outHeight * outWidth * channels);
    this.chosen = new Int32Array(out.length);
    this.inputs = data.length;
    let at = 0;
    for (let example = 0; example < examples; example++) {
      for (let y = 0; y < outHeight; y++) {
        for (let x = 0; x < outWidth; x++) {
          for (let c = 0; c < channels; c++, at++) {
            let best = ((example * height + y * this.size[0]) * width + x * this.size[1]) * channels + c;
            const corner = best;
            for (let row = 0; row < this.size[0]; row++) {
              for (let column = 0; column < this.size[1]; column++) {
                const place = corner + (row * width + column) * channels;
                // The first in row order where several are equal.
                if (data[place] > data[best]) best = place;
              }
            }
            this.chosen[at] = best;
            out[at] = data[best];
          }
        }
      }
    }
    return { data: out, examples, height: outHeight, width: outWidth, channels };
  }

  backward(gradient: Float32Array): Float32Array {
    const out = new Float32Array(this.inputs);
    for (let i = 0; i < gradient.length; i++) out[this.chosen[i]] += gradient[i];
    return out;
  }
}

export class Relu implements Layer {
  private out: Float32Array = new Float32Array(0);

  forward(batch: Batch): Batch {
    this.out = batch.data.map((value) => (value > 0 ? value : 0));
    return { ...batch, data: this.out };
  }

  backward(gradient: Float32Array): Float32Array {
    return gradient.map((value, i) => (this.out[i] > 0 ? value : 0));
  }
}

/** Channel by channel, each row by row: the order that the linear layer's weights have. */
export class Flatten implements Layer {
  private shape: Batch = { data: new Float32Array(0), examples: 0, height: 0, width: 0, channels: 0 };

  forward(batch: Batch): Batch {
    this.shape = batch;
    const size = batch.height * batch.width * batch.channels;
    const data = new Float32Array(batch.data.length);
    this.each((last, flat) => (data[flat] = batch.data[last]));
    return { data, examples: batch.examples, height: 1, width: 1, channels: size };
  }

  backward(gradient: Float32Array): Float32Array {
    const out = new Float32Array(gradient.length);
    this.each((last, flat) => (out[last] = gradient[flat]));
    return out;
  }

  private each(visit: (last: number, flat: number) => void): void {
    const { examples, height, width, channels } = this.shape;
    const area = height * width;
    let last = 0;
    for (let example = 0; example < examples; example++) {
      for (let place = 0; place < area; place++) {
        for (let c = 0; c < channels; c++) visit(last++, (example * channels + c) * area + place);
      }
    }
  }
}
