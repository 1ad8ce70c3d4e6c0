"""A difference in a codec pipeline that leaves least of it.

With d = decode(encode(x)), x − d is left, which is longer than x where the vNMSE is above 1. So of each tensor a·x is
encoded, with the a = ⟨x, d⟩ / ⟨d, d⟩ that leaves least. Phones need not know a, and after an unbiased code
vNMSE / (1 + vNMSE) of ‖x‖² is left, always less than all.
"""

import numpy as np

from featherfed.codec.layout import Layout
from featherfed.codec.pipeline import Pipeline
from featherfed.codec.space import F32
from featherfed.codec.sums import product
from featherfed.randomness import RoundKey

NEARLY_ALL = 0.99
"""A multiple above this is not worth a second encoding."""


def encoded(pipeline: Pipeline, difference: F32, layout: Layout, key: RoundKey) -> tuple[bytes, F32]:
    """Return the payload of the multiple of `difference` that leaves least of it, and what it decodes to.

    `difference` may be changed: a copy would be one more vector as long as the model.
    """
    payload, decoded = _try(pipeline, difference, layout, key)
    start, least = 0, 1.0
    for part in pipeline.space(layout, key).parts:
        place = slice(start, start + part.size)
        start += part.size
        length = product(decoded[place], decoded[place])
        if length and not part.exact:
            factor = min(max(product(difference[place], decoded[place]) / length, 0.0), 1.0)
            difference[place] *= np.float32(factor)
            least = min(least, factor)
    if least > NEARLY_ALL:
        return payload, decoded
    del decoded
    return _try(pipeline, difference, layout, key)


def _try(pipeline: Pipeline, difference: F32, layout: Layout, key: RoundKey) -> tuple[bytes, F32]:
    """Return what `difference` is encoded to, and what that decodes to."""
    payload = pipeline.encode(difference, layout, key).payload
    return payload, pipeline.decode(payload, layout, key)
