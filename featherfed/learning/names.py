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
    "lite": _layout(conv1=(16, 1, 5, 5), conv2=(32, 16, 3, 3), conv3=(64, 32, 3, 3), a=(10, 576)),
}
"""The tensors of each model: what a phone that does not train needs to know of it."""

MODELS = tuple(LAYOUTS)
TRAINING_EXAMPLES = {"mnist": 60_000, "digits": 1_438}
"""How many examples the phones of a run share."""
DATASETS = tuple(TRAINING_EXAMPLES)
