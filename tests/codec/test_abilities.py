"""What a phone says that it can do, and what it is told where that is not enough."""

import re
from pathlib import Path

import pytest

from featherfed.codec.abilities import NUMBERED, check_able
from featherfed.errors import RefusedError

PROTOCOL = Path(__file__).parents[2] / "docs" / "PROTOCOL.md"
CODECS = PROTOCOL.with_name("CODECS.md")


def bits(*names: str) -> int:
    return sum(1 << NUMBERED.index(name) for name in names)


def test_the_page_lists_the_stages_in_the_order_of_their_bits() -> None:
    section = PROTOCOL.read_text(encoding="utf-8").split("#### What a phone can do")[1].split("\n\n")[1]
    listed = re.findall(r"`([a-z_0-9]+)`", section.partition("counted from 0:")[2].partition("That is")[0])
    assert tuple(listed) == NUMBERED


def test_every_stage_of_the_codecs_page_has_a_bit() -> None:
    table = CODECS.read_text(encoding="utf-8").split("<!-- codec stages: begin -->")[1]
    rows = re.findall(r"^\| `([a-z_0-9]+)", table.split("<!-- codec stages: end -->")[0], re.MULTILINE)
    assert set(rows) | {"lattice", "fresh"} == set(NUMBERED)


@pytest.mark.parametrize(
    ("stages", "uplinks", "downlink", "sentence"),
    [
        (0, ["stc-400"], "lattice(1)", None),
        (bits("rotate", "eden", "lattice"), ["eden-1bit"], "lattice(1)", None),
        (bits("rotate", "eden", "fresh"), ["eden-1bit"], "fresh | rotate | eden(4)", None),
        (bits("rotate", "eden"), ["eden-1bit"], "lattice(1)", "do lattice, which the downlink of this run needs"),
        (bits("rotate", "eden"), ["eden-1bit", "stc-400"], "eden-1bit",
         "cannot do feedback and topk and ternary and entropy, which the uplink of this run needs"),
    ],
)  # fmt: skip
def test_a_phone_is_told_which_stage_it_lacks(
    stages: int, uplinks: list[str], downlink: str, sentence: str | None
) -> None:
    if sentence is None:
        check_able(stages, uplinks, downlink)
        return
    with pytest.raises(RefusedError, match=sentence):
        check_able(stages, uplinks, downlink)
