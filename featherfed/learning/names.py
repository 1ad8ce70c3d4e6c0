"""The names that people type, known without importing torch: models with their layouts, and data sets."""

from featherfed.codec.layout import Layout, Tensor


def _layout(**shapes: tuple[int, ...]) -> Layout:
    tensors = []
    for name, shape in shapes.items():
        tensors += [Tensor(f"{name}.weight", shape), Tensor(f"{name}.bias", shape[:1])]
    return Layout(tuple(tensors))


LAYOUTS: dict[str, Layout] = {
    "mlp": _layout(a=(256, 784), b=(128, 256), c=(64, 128), d=(32, 64), e=(10, 32)),
    "2nn": _layout(a=(200, 784), b=(200, 200), c=(10, 200)),
    "cnn": _layout(conv1=(32, 1, 5, 5), conv2=(64, 32, 5, 5), a=(512, 3136), b=(10, 512)),
    "tiny": _layout(conv1=(16, 1, 5, 5), conv2=(32, 16, 3, 3), a=(10, 288)),
    "lite": _layout(conv1=(16, 1, 5, 5), conv2=(32, 16, 3, 3), conv3=(64, 32, 3, 3), a=(10, 576)),
}
"""The tensors of each model: what a phone that does not train needs to know of it."""

MODELS = tuple(LAYOUTS)
TRAINING_EXAMPLES = {"mnist": 60_000, "mnist-tuning": 50_000, "digits": 1_438}
"""How many examples the phones of a run share. `mnist-tuning` is MNIST's training set alone: it trains on the first
50,000 images and tests on the last 10,000, so that settings can be chosen without a look at the test set."""
DATASETS = tuple(TRAINING_EXAMPLES)


def summary(name: str) -> str:
    """Return the model's layers, shapes, parameters and float32 bytes as a plain table."""
    model = LAYOUTS[name]
    lines = [f"{'tensor':<14} {'shape':<18} {'parameters':>12} {'bytes':>12}"]
    lines += [f"{t.name:<14} {'×'.join(map(str, t.shape)):<18} {t.size:>12,} {4 * t.size:>12,}" for t in model.tensors]
    return "\n".join([*lines, f"{'total':<33} {model.size:>12,} {4 * model.size:>12,}"])
