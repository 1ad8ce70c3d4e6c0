"""How cohorts are dealt into circles."""

from hypothesis import given
from hypothesis import strategies as st

from featherfed.secure.circles import DEFAULT_LEAST_CIRCLE, MOST_MEMBERS
from featherfed.server.circle_plan import plan_of, risks_of
from featherfed.server.config import config_from


@given(
    cohort=st.integers(DEFAULT_LEAST_CIRCLE, 500), size=st.integers(DEFAULT_LEAST_CIRCLE, MOST_MEMBERS), data=st.data()
)
def test_circles_deal_everybody_once_and_evenly(cohort: int, size: int, data: st.DataObject) -> None:
    plan = plan_of(config_from({"phones": cohort, "cohort": cohort, "secure": True, "circle": size}), 1)
    circles = plan.deal(range(cohort), 7, 1, 0)
    assert sorted(shard for circle in circles for shard in circle) == list(range(cohort))
    sizes = {len(circle) for circle in circles}
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) >= min(cohort, size, MOST_MEMBERS // 2)
    assert max(sizes) == plan.members(cohort) <= plan.most <= MOST_MEMBERS
    # What is tried again, or a gateway's share, has no circle for which the round's steps have no room, and none in
    # which a phone would not be masked.
    again = plan.deal(range(data.draw(st.integers(DEFAULT_LEAST_CIRCLE, cohort))), 7, 1, 1)
    assert min(map(len, again)) >= DEFAULT_LEAST_CIRCLE and max(map(len, again)) <= plan.most


def test_operator_is_told_what_circles_stand() -> None:
    config = config_from({"phones": 1000, "cohort": 20, "secure": True, "circle": 10})
    assert str(risks_of(config)).startswith("circles of 10: a sum is opened though up to 3 of them are lost")
