"""What four browsers learn of the bundled digits, beside four Python phones with the same shards and settings."""

from collections.abc import Callable

import pytest

import featherfed as ff

from .browsing import Browsing, Run

FLAGS = ("--problem", "digits/tiny", "--phones", "4", "--rounds", "8", "--epochs", "2", "--lr", "0.05")


@pytest.mark.timeout(600)
def test_four_browsers_are_as_good_as_four_python_phones(
    start: Callable[..., Run], phone: Callable[..., Browsing]
) -> None:
    # In virtual time: that it is the run of processes to the bit has tests of its own.
    python = ff.Experiment("digits/tiny", phones=4, rounds=8, local=ff.SGD(epochs=2, lr=0.05)).simulate()
    run = start(*FLAGS)
    browsers = [phone(run.url) for _ in range(4)]
    for each in browsers:
        each.page.locator("#emulate").click()
    for each in browsers:
        each.wait_text("#says", "all 8 rounds are done", 200)
        assert "bundled digits stayed here" in each.text("#ledger")
    run.wait()
    assert [row.accepted for row in python.rounds] == [each["accepted"] for each in run.rounds()] == [4] * 8
    # The two shuffle in their own ways; of 359 test images three and a half are one per cent.
    reached = [python.rounds[-1].metrics["accuracy"], run.rounds()[-1]["metrics"]["accuracy"]]
    assert min(reached) > 0.95 and abs(reached[0] - reached[1]) <= 0.01, reached
