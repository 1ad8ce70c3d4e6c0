"""FedJAX's FedAvg, with its default backend (`jax.jit`, clients one after the other), and XLA's threads as it has them.

FedJAX's last version calls two functions that newer versions of jax have no more. `tree_map` has moved, and is put
where it was, so that FedJAX has the newest jax; `device_put_sharded` is gone, and with it its backend for several
devices.
"""

import sys
from pathlib import Path
from typing import Any

import fedjax
import jax
import jax.numpy as jnp
import numpy as np
from fedjax.algorithms import fed_avg

from lab.rounds_app.given import Given

jax.tree_map = jax.tree_util.tree_map
EVALUATED_AT_ONCE = 500
Weights = dict[str, Any]


def channels_last(given: Given) -> Weights:
    """Return the first weights for images whose channels are last, as XLA's convolutions on a CPU have them best."""
    weights, channels = dict(given.weights), 1
    flat = False
    for layer in given.layers:
        if layer["kind"] == "conv":
            channels = weights[layer["weight"]].shape[0]
            weights[layer["weight"]] = weights[layer["weight"]].transpose(2, 3, 1, 0)
        elif layer["kind"] == "flatten":
            flat = True
        elif layer["kind"] == "linear":
            matrix = weights[layer["weight"]]
            if flat:
                side = round((matrix.shape[1] // channels) ** 0.5)
                blocks = matrix.reshape(len(matrix), channels, side, side).transpose(0, 2, 3, 1)
                matrix, flat = blocks.reshape(matrix.shape), False
            weights[layer["weight"]] = matrix.T
    return {name: jnp.asarray(np.ascontiguousarray(array)) for name, array in weights.items()}


def outputs(layers: list[dict[str, Any]], weights: Weights, images: jax.Array) -> jax.Array:
    """Return the logits (n, 10) of images (n, 28, 28, 1)."""
    x = images
    for layer in layers:
        match layer["kind"]:
            case "conv":
                padding = [(amount, amount) for amount in layer["padding"]]
                x = jax.lax.conv_general_dilated(
                    x, weights[layer["weight"]], layer["stride"], padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
                )
                x = x + weights[layer["bias"]]
            case "max":
                window = (1, *layer["size"], 1)
                x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, window, "VALID")
            case "relu":
                x = jax.nn.relu(x)
            case "flatten":
                x = x.reshape(len(x), -1)
            case "linear":
                x = x @ weights[layer["weight"]] + weights[layer["bias"]]
            case other:
                raise ValueError(f"no layer of kind {other!r}")
    return x


def examples(images: Any, labels: Any) -> fedjax.ClientDataset:
    """Return a shard as FedJAX has it."""
    return fedjax.ClientDataset({"x": np.ascontiguousarray(images.transpose(0, 2, 3, 1)), "y": labels.astype(np.int32)})


def main(folder: Path) -> None:
    """Run the rounds."""
    given = Given.read(folder)
    first = channels_last(given)
    model = fedjax.Model(
        init=lambda key: first,
        apply_for_train=lambda weights, batch, key: outputs(given.layers, weights, batch["x"]),
        apply_for_eval=lambda weights, batch: outputs(given.layers, weights, batch["x"]),
        train_loss=lambda batch, logits: fedjax.metrics.unreduced_cross_entropy_loss(batch["y"], logits),
        eval_metrics={"accuracy": fedjax.metrics.Accuracy()},
    )
    shards = [examples(*shard) for shard in given.shards]
    test = examples(*given.test)
    algorithm = fed_avg.federated_averaging(
        fedjax.model_grad(model),
        fedjax.optimizers.sgd(given.order.lr),
        fedjax.optimizers.sgd(1.0),
        fedjax.ShuffleRepeatBatchHParams(batch_size=given.order.batch_size, num_epochs=given.order.epochs, seed=0),
    )
    state = algorithm.init(first)
    for number, cohort in enumerate(given.cohorts):
        keys = jax.random.split(jax.random.PRNGKey(number), len(cohort))
        clients = [(phone, shards[phone], key) for phone, key in zip(cohort, keys, strict=True)]
        state, diagnostics = algorithm.apply(state, clients)
        # What jax is asked for is done later: the figure of the test set is when all of it is there.
        figures = fedjax.evaluate_model(model, state.params, test.padded_batch(batch_size=EVALUATED_AT_ONCE))
        given.note(len(diagnostics), float(figures["accuracy"]))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
