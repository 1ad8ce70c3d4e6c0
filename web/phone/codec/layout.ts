/** How a model's tensors lie in its vector. */

export interface Tensor {
  readonly name: string;
  readonly shape: readonly number[];
}

/** Return how many values a tensor has. */
export function sizeOf(tensor: Tensor): number {
  return tensor.shape.reduce((all, side) => all * side, 1);
}

/** Return how many values a model has. */
export function parameters(layout: readonly Tensor[]): number {
  return layout.reduce((all, tensor) => all + sizeOf(tensor), 0);
}
