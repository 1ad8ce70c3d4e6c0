"""What four browsers learn of the bundled digits, beside four Python phones with the same shards and settings."""

from collections.abc import Callable

import pytest

from .browsing import Browsing, Run

FLAGS = ("--problem", "digits/tiny", "--phones", "4", "--rounds", "8", "--epochs", "2", "--lr", "0.05")


@pytest.mark.timeout(600)
def test_four_browsers_are_as_good_as_four_python_phones(
    start: Callable[..., Run], phone: Callable[..., Browsing]
) -> None:
    python = start(*FLAGS)
    python.python_phones(4)
    python.wait(200)
    run = start(*FLAGS)
    browsers = [phone(run.url) for _ in range(4)]
    for each in browsers:
        each.page.locator("#emulate").click()
    for each in browsers:
        each.wait_text("#says", "all 8 rounds are done", 200)
        assert "bundled digits stayed here" in each.text("#ledger")
    run.wait()
    for done in (python, run):
        assert [each["accepted"] for each in done.rounds()] == [4] * 8
    # The two shuffle in their own ways; of 359 test images three and a half are one per cent.
    reached = [done.rounds()[-1]["metrics"]["accuracy"] for done in (python, run)]
    assert min(reached) > 0.95 and abs(reached[0] - reached[1]) <= 0.01, reached
