"""What becomes of what a coarse view leaves out: w − s, with w the server's model and s what phones hold of it.

Phones train from s. With u what the server's optimizer makes of their mean update (for fedavg the update itself):

    keep    w ← w + u                     what was left out stays in w, and comes down as soon as it is long enough
    drop    w ← s + u                     w goes on from where the phones began
    β       w ← (1 − β)·w + β·(s + u)     between the two: w is a mean of what phones made of their views

Many small steps need `keep`: a step shorter than half of what the view can show would vanish each time. A few long
steps do better without: what was left out is noise that the next phones have not seen, and their update does not answer
it. β = 1 is `drop`.
"""

import numpy as np
import numpy.typing as npt

from featherfed.errors import ConfigError
from featherfed.rules.server_optimizer import ServerState

F32 = npt.NDArray[np.float32]

NAMES = {"keep": 0.0, "drop": 1.0}


def parse_leftover(text: str) -> float:
    """Return β, 0 for `keep`; raises `ConfigError`."""
    if text in NAMES:
        return NAMES[text]
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise ConfigError(f"--leftover {text!r} is not keep, drop, or a share above 0 and up to 1, like 0.5")
    return share


def start(share: float, state: ServerState, view: F32) -> ServerState:
    """Return what the optimizer steps from: the model (share 0) or the view, (parameters,) float32."""
    return ServerState(view, state.arrays) if share else state


def mixed(share: float, before: ServerState, after: ServerState) -> ServerState:
    """Return the state after a round, given that before it and what the optimizer made of `start`."""
    if share in NAMES.values():
        return after
    weights = before.weights + np.float32(share) * (after.weights - before.weights)
    return ServerState(weights, after.arrays)
