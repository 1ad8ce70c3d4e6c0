"""What a coarse view leaves out is kept, dropped or mixed."""

import numpy as np
import pytest

from featherfed.errors import ConfigError
from featherfed.rules.server_optimizer import ServerState
from featherfed.server.leftover import mixed, parse_leftover, start

MODEL, VIEW, STEP = (np.array(numbers, np.float32) for numbers in ([1, 2, 3], [1.5, 2, 2], [0.5, 0.25, -1]))
MEMORY = {"momentum": np.ones(3, np.float32)}


def after_round(leftover: str) -> np.ndarray:
    """Return the model after a round of fedavg."""
    share, before = parse_leftover(leftover), ServerState(MODEL, MEMORY)
    begin = start(share, before, VIEW)
    assert begin.arrays is MEMORY
    return mixed(share, before, ServerState(begin.weights + STEP, begin.arrays)).weights


def test_kept_steps_from_the_model_and_dropped_from_the_view() -> None:
    assert after_round("keep").tolist() == (MODEL + STEP).tolist()
    assert after_round("drop").tolist() == (VIEW + STEP).tolist()
    assert after_round("1").tolist() == after_round("drop").tolist()


def test_mixed_is_a_mean_of_the_model_and_of_what_phones_made_of_their_view() -> None:
    assert after_round("0.25").tolist() == (0.75 * MODEL + 0.25 * (VIEW + STEP)).tolist()


@pytest.mark.parametrize("text", ["0", "1.5", "-0.5", "nan", "inf", "kept", ""])
def test_other_words_and_shares_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--leftover .* is not keep, drop, or a share above 0 and up to 1, like 0.5"):
        parse_leftover(text)
