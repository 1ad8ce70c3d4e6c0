/** A chain of layers over one vector of weights: logits, probabilities, and the gradient of cross-entropy. */

import { FaultError, UnableError } from "../codec/fault.ts";
import { parameters, sizeOf, type Tensor } from "../codec/layout.ts";
import type { Description, LayerDescription } from "./description.ts";
import { Convolution, Flatten, Linear, Max, Relu, type Batch, type Layer, type Weights } from "./layers.ts";

export class Network {
  readonly weights: Float32Array;
  readonly gradient: Float32Array;
  private readonly layers: readonly Layer[];
  private readonly places = new Map<string, { begin: number; tensor: Tensor }>();

  /** Raises `UnableError` where the layers do not use each tensor of the layout once. */
  constructor(
    private readonly description: Description,
    layout: readonly Tensor[],
  ) {
    this.weights = new Float32Array(parameters(layout));
    this.gradient = new Float32Array(this.weights.length);
    let begin = 0;
    for (const tensor of layout) {
      this.places.set(tensor.name, { begin, tensor });
      begin += sizeOf(tensor);
    }
    const used: string[] = [];
    this.layers = description.layers.map((layer) => this.layer(layer, used));
    if (used.length !== layout.length || new Set(used).size !== layout.length) {
      throw new UnableError(`the page's layers have ${used.length} tensors, and the run's model has ${layout.length}`);
    }
  }

  private layer(said: LayerDescription, used: string[]): Layer {
    switch (said.kind) {
      case "linear": {
        const [outputs, inputs] = this.shape(said.weight, 2);
        return new Linear(this.views(said, used), inputs, outputs);
      }
      case "conv": {
        const [outputs, inputs, height, width] = this.shape(said.weight, 4);
        const { stride, padding } = said;
        return new Convolution(this.views(said, used), { inputs, outputs, height, width, stride, padding });
      }
      case "max": return new Max(said.size);
      case "relu": return new Relu();
      case "flatten": return new Flatten();
      default: throw new UnableError(`this page has no layer ${JSON.stringify((said as { kind: unknown }).kind)}`);
    }
  }

  private place(name: string): { begin: number; tensor: Tensor } {
    const found = this.places.get(name);
    if (!found) throw new UnableError(`the page's layers need a tensor ${JSON.stringify(name)}, which does not travel`);
    return found;
  }

  private shape(name: string, dimensions: number): readonly number[] {
    const { shape } = this.place(name).tensor;
    if (shape.length !== dimensions) throw new UnableError(`${name} has ${shape.length} dimensions, not ${dimensions}`);
    return shape;
  }

  private views({ weight, bias }: { weight: string; bias: string | null }, used: string[]): Weights {
    const view = (name: string, of: Float32Array) => {
      const { begin, tensor } = this.place(name);
      return of.subarray(begin, begin + sizeOf(tensor));
    };
    used.push(weight, ...(bias === null ? [] : [bias]));
    return {
      weight: view(weight, this.weights),
      bias: bias === null ? null : view(bias, this.weights),
      weightGradient: view(weight, this.gradient),
      biasGradient: bias === null ? null : view(bias, this.gradient),
    };
  }

  /** Return logits, (examples, classes), of inputs (examples, channels, height, width). */
  logits(inputs: Float32Array, examples: number): Float32Array {
    const [channels, height, width] = this.description.input;
    if (inputs.length !== examples * channels * height * width) throw new FaultError("inputs of another size");
    const data = channelsLast(inputs, examples, channels, height * width);
    let batch: Batch = { data, examples, height, width, channels };
    for (const layer of this.layers) batch = layer.forward(batch);
    return batch.data;
  }

  /** Return the probabilities of one input's classes. */
  probabilities(input: Float32Array): Float32Array {
    const logits = this.logits(input, 1);
    const most = logits.reduce((a, b) => Math.max(a, b), -Infinity);
    const powers = Float64Array.from(logits, (z) => Math.exp(z - most));
    const sum = powers.reduce((a, b) => a + b, 0);
    return Float32Array.from(powers, (power) => power / sum);
  }

  /** Write the gradient of a batch's mean loss to `gradient`; return that loss, in nats. */
  learn(inputs: Float32Array, targets: Uint8Array): number {
    const examples = targets.length;
    const logits = this.logits(inputs, examples);
    const classes = logits.length / examples;
    let loss = 0;
    let back: Float32Array = new Float32Array(logits.length);
    for (let i = 0; i < examples; i++) {
      const z = logits.subarray(i * classes, (i + 1) * classes);
      const most = z.reduce((a, b) => Math.max(a, b), -Infinity);
      let sum = 0;
      for (const each of z) sum += Math.exp(each - most);
      loss += Math.log(sum) + most - z[targets[i]];
      for (let c = 0; c < classes; c++) {
        back[i * classes + c] = (Math.exp(z[c] - most) / sum - (c === targets[i] ? 1 : 0)) / examples;
      }
    }
    // Layers before the first one with weights pass nothing on that anybody needs.
    const first = this.layers.findIndex((layer) => layer instanceof Linear || layer instanceof Convolution);
    for (let i = this.layers.length - 1; i >= first; i--) back = this.layers[i].backward(back, i === first);
    return loss / examples;
  }
}

function channelsLast(inputs: Float32Array, examples: number, channels: number, area: number): Float32Array {
  if (channels === 1) return inputs;
  const out = new Float32Array(inputs.length);
  let at = 0;
  for (let example = 0; example < examples; example++) {
    for (let c = 0; c < channels; c++) {
      for (let place = 0; place < area; place++) out[(example * area + place) * channels + c] = inputs[at++];
    }
  }
  return out;
}
