"""What the disk has of circles, and what a server makes of it when it comes back."""

from pathlib import Path

from featherfed.server.circle_plan import CirclePlan
from featherfed.server.rounds.circle import CirclePhase
from featherfed.server.rounds.stored_circles import StoredCircles
from featherfed.server.storage.circle_rows import StoredCircle, put_circle
from featherfed.server.storage.store import Store


def test_who_came_in_a_later_attempt_is_in_no_sum_of_an_earlier_one(tmp_path: Path) -> None:
    store = Store(tmp_path / "run.sqlite")
    store.apply(
        [
            put_circle(StoredCircle(1, 0, 0, "summed", (0, 1, 2, 3), (0, 1))),
            put_circle(StoredCircle(1, 1, 0, "open", (3, 2))),
        ]
    )
    stored = StoredCircles.read(store, 1, {0, 1, 2}, plan=CirclePlan())
    assert stored.attempts[0][0].survivors == {0, 1}
    assert stored.attempts[0][0].phase is CirclePhase.SUMMED
    assert stored.attempts[1][0].arrived == {2}
    assert not stored.over
    store.close()
