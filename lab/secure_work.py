"""What masks cost in CPU time, for `python -m lab secure`: the server's opening, a phone's part, rounds on sockets."""

import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from featherfed.codec.summable import Summable
    from featherfed.secure.context import Context
    from featherfed.secure.keys import PhoneKey

PROBLEM, UPLINK = "digits/lite", "secure-4bit"
CLIP = 3.0
SERVER_MS, PHONE_MS = 15.0, 2.0


def _load() -> float:
    return os.getloadavg()[0]


@dataclass(frozen=True, slots=True)
class _Told:
    """All that the server has of one circle when it opens it: updates as they are stored, without their heads apart."""

    context: "Context"
    slice_: int
    stored: dict[int, bytes]
    survivors: frozenset[int]
    seeds: dict[tuple[int, int], bytes]
    shares: dict[tuple[int, int], bytes]


@dataclass(frozen=True, slots=True)
class _Setting:
    """A round: what is summed, and its steps."""

    summable: "Summable"
    steps: bytes
    slices: int


def _setting(members: int, slices: int) -> _Setting:
    from featherfed.codec.pipeline import Pipeline
    from featherfed.codec.summable import Summable
    from featherfed.learning.models import layout_of

    summable = Summable(Pipeline.parse(UPLINK), layout_of(PROBLEM), clip=CLIP)
    return _Setting(summable, summable.steps(None, members=members), slices)


def _context(setting: _Setting, number: int, keys: "dict[int, PhoneKey]", attempt: int = 0) -> "Context":
    from featherfed.secure.circles import least_of, threshold_of
    from featherfed.secure.context import Context

    return Context(
        run="bench", round_number=1, attempt=attempt, circle=number, slice_=number % setting.slices,
        slices=setting.slices, threshold=threshold_of(len(keys)), least=least_of(len(keys)), uplink=UPLINK,
        bits=setting.summable.bits, steps=setting.steps, clip=CLIP, model=bytes(8), members=tuple(keys),
        keys=tuple(key.public for key in keys.values()),
    )  # fmt: skip


def _update(setting: _Setting, shard: int) -> "npt.NDArray[np.float32]":
    import numpy as np

    from featherfed.learning.models import layout_of

    drawn = np.random.default_rng(shard).standard_normal(layout_of(PROBLEM).size, dtype=np.float32)
    return drawn / np.float32(np.linalg.norm(drawn))


def _circle(setting: _Setting, number: int, shards: tuple[int, ...], lost: int) -> _Told:
    """Return what the server has of a circle whose last `lost` phones sent nothing."""
    from featherfed.randomness import RoundKey
    from featherfed.secure.keys import PhoneKey, new_own_seed
    from featherfed.secure.member import Member

    phones = {shard: PhoneKey.new() for shard in shards}
    context = _context(setting, number, phones)
    here = frozenset(shards[: len(shards) - lost])
    gone = frozenset(shards) - here
    stored: dict[int, bytes] = {}
    seeds: dict[tuple[int, int], bytes] = {}
    shares: dict[tuple[int, int], bytes] = {}
    for place, shard in enumerate(sorted(here)):
        member = Member.begin(phones[shard], new_own_seed(), context, shard)
        made = setting.summable.encode(
            _update(setting, shard), RoundKey(0, 1, shard), steps=setting.steps, slice_=context.slice_,
            slices=setting.slices,
        )  # fmt: skip
        head, word, residues = member.mask(1, made.residues)
        stored[shard] = head + word.to_bytes(4, "little") + setting.summable.pack(residues)
        if gone:
            told = member.answer(1, False, here, gone)
            seeds |= {(shard, other): told[16 * at : 16 * at + 16] for at, other in enumerate(sorted(gone))}
        # As the server asks: of t + 1 neighbours of each survivor, turn by turn.
        order = sorted(here)
        asked = [
            order[(place - step) % len(order)] for step in range(1, min(len(order) - 1, context.threshold + 1) + 1)
        ]
        told = member.answer(2, True, here, frozenset(asked))
        listed = [other for other in context.members if other in asked]
        shares |= {(shard, other): told[16 * at : 16 * at + 16] for at, other in enumerate(listed)}
    return _Told(context, context.slice_, stored, here, seeds, shares)


def _open_all(setting: _Setting, circles: list[_Told], members: int) -> None:
    """Do what the server does for a round: parse the updates, take off the masks, add to the round's mean."""
    from featherfed.codec.summed import Summed
    from featherfed.randomness import RoundKey
    from featherfed.secure.opening import Upload, open_circle

    total = Summed(setting.summable, RoundKey(0, 1), steps=setting.steps, members=members, slices=setting.slices)
    for told in circles:
        length, count = told.context.head_bytes, setting.summable.count(told.slice_, setting.slices)
        uploads = {
            shard: Upload(
                data[:length],
                int.from_bytes(data[length : length + 4], "little"),
                setting.summable.unpack(data[length + 4 :], count),
            )
            for shard, data in told.stored.items()
        }
        opened = open_circle(told.context, uploads, told.survivors, told.seeds, told.shares)
        total.add_circle(opened.residues, sorted(told.survivors), told.slice_)
    total.mean()


def _masks_off(setting: _Setting, circles: list[_Told]) -> float:
    """Return the CPU seconds of taking the masks off alone: updates are parsed before."""
    from featherfed.secure.opening import Upload, open_circle

    parsed = []
    for told in circles:
        length, count = told.context.head_bytes, setting.summable.count(told.slice_, setting.slices)
        parsed.append(
            {
                shard: Upload(
                    data[:length],
                    int.from_bytes(data[length : length + 4], "little"),
                    setting.summable.unpack(data[length + 4 :], count),
                )
                for shard, data in told.stored.items()
            }
        )
    began_s = time.process_time()
    for told, uploads in zip(circles, parsed, strict=True):
        open_circle(told.context, uploads, told.survivors, told.seeds, told.shares)
    return time.process_time() - began_s


def _phone_s(setting: _Setting, members: int) -> float:
    """Return the CPU seconds of a phone's part: keys of its neighbours, masks, and answers to a final list."""
    from featherfed.randomness import RoundKey
    from featherfed.secure.keys import PhoneKey, new_own_seed
    from featherfed.secure.member import Member

    phones = {shard: PhoneKey.new() for shard in range(members)}
    context = _context(setting, 0, phones)
    made = setting.summable.encode(_update(setting, 0), RoundKey(0, 1, 0), steps=setting.steps)
    everybody = frozenset(phones)
    own = PhoneKey(phones[0].private)
    began_s = time.process_time()
    member = Member.begin(own, new_own_seed(), context, 0)
    member.mask(1, made.residues)
    member.answer(1, True, everybody, everybody - {0})
    return time.process_time() - began_s


def measure_work(repeats: int) -> list[dict[str, Any]]:
    """Return medians of CPU time, all of them measured in turns; what unmasked rounds need too has no aim."""
    rows: dict[str, tuple[float | None, list[float]]] = {}
    cases = []
    for slices in (1, 10):
        setting = _setting(10, slices)
        dealt = [
            _circle(setting, number, shards, 1)
            for number, shards in enumerate(zip(*[iter(range(100))] * 10, strict=True))
        ]
        cases.append((setting, dealt, "a slice each" if slices > 1 else "all of `lite` each"))
    load = _load()
    for _ in range(repeats):
        for setting, dealt, each in cases:
            name = f"server: masks off a round of 100 phones in tens, a tenth lost, {each}"
            rows.setdefault(name, (SERVER_MS, []))[1].append(_masks_off(setting, dealt))
            began_s = time.process_time()
            _open_all(setting, dealt, 10)
            name = f"server: the same with unpacking, dithers and the round's mean, {each}"
            rows.setdefault(name, (None, []))[1].append(time.process_time() - began_s)
        for members in (10, 20):
            name = f"a phone's part in a circle of {members}, all of `lite`: keys, masks, answer"
            rows.setdefault(name, (PHONE_MS, []))[1].append(_phone_s(_setting(members, 1), members))
    load = max(load, _load())
    return [
        {"what": what, "aim_ms": aim_ms, "ms": 1e3 * median(seconds), "load": load}
        for what, (aim_ms, seconds) in rows.items()
    ]


def measure_sockets(phones: int, rounds: int, turns: int) -> dict[str, Any]:
    """Return the median seconds of a round without training on loopback, masked and not in turns."""
    seconds: dict[bool, list[float]] = {True: [], False: []}
    load = _load()
    for _ in range(turns):
        for secure in (True, False):
            seconds[secure] += _socket_rounds(phones, rounds, secure=secure)
    return {
        "phones": phones, "masked_s": median(seconds[True]), "plain_s": median(seconds[False]),
        "load": max(load, _load()),
    }  # fmt: skip


def _socket_rounds(phones: int, rounds: int, *, secure: bool) -> list[float]:
    from featherfed.fl_bench.cells import report_of
    from featherfed.fl_bench.processes import Processes

    with (
        tempfile.TemporaryDirectory(prefix="featherfed-secure-") as folder,
        Processes(Path(folder) / "logs") as started,
    ):
        flags = {
            "--runs": folder, "--name": "run", "--problem": PROBLEM, "--phones": phones, "--cohort": phones,
            "--rounds": rounds + 2, "--eval-every": rounds + 2, "--uplink": UPLINK, "--circle": phones,
        }  # fmt: skip
        given = [part for name, value in flags.items() for part in (name, str(value))]
        address = started.start_server([*given, "--no-dashboard", *["--secure"] * secure], lambda event: None)
        told = ["--server", address, "--problem", PROBLEM, "--train", "none", "--count", str(phones), "--quiet"]
        started.start_phone("swarm", told, "swarm")
        started.wait_for_server(300.0)
        rows = report_of(Path(folder) / "run")["rounds"]
    # The first has the keys and the joining, the last the evaluation.
    return [row["seconds"] for row in rows[1:-1]]
