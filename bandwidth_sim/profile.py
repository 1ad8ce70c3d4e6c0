"""A phone's two directions, from a named profile, a TOML file or flags."""

import contextlib
import difflib
import functools
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any

from featherfed.bandwidth_sim.drop import ENDINGS, DropRule
from featherfed.bandwidth_sim.errors import LinkConfigError
from featherfed.bandwidth_sim.link import MSS, SLACK_BYTES, LinkSpec
from featherfed.bandwidth_sim.outage import GilbertElliott, OutageSpec, Schedule
from featherfed.bandwidth_sim.trace import PACKET_BYTES, read_trace
from featherfed.bandwidth_sim.units import parse_duration, parse_percent, parse_rate, parse_size

KEYS = (
    "up",
    "down",
    "rtt",
    "jitter",
    "loss",
    "queue",
    "overhead",
    "mean-up",
    "mean-down",
    "schedule",
    "drop-every",
    "drop-how",
    "source",
)
"""What a profile in TOML may say; every value is text with a unit, as for the flags."""

PING_S = 20.0
"""The least ping interval and timeout: the websockets library's own defaults."""

NONE: Mapping[str, "Profile"] = MappingProxyType({})
"""No links of one's own."""

_STEP = re.compile(r"^up\s+(\S+)\s*,\s*down\s+(\S+)$")


@dataclass(frozen=True, slots=True)
class Profile:
    """One phone's link: `up` from the phone, `down` to it, and where the figures come from."""

    name: str
    up: LinkSpec
    down: LinkSpec
    source: str

    @property
    def rtt_s(self) -> float:
        """The round trip of an idle link in seconds, serialization not counted."""
        return self.up.delay_s + self.down.delay_s

    @property
    def chunk_bytes(self) -> int:
        """How much to send in one message at most: about a second of the slower direction, 1 to 128 KiB."""
        slower = min(self.up.goodput_bytes_per_s, self.down.goodput_bytes_per_s)
        return int(min(max(slower, 1024), 128 * 1024))

    def keepalive(self, message_bytes: int = 0) -> tuple[float, float]:
        """Return ping interval and timeout in seconds that a full link does not break.

        A ping waits behind what its side has already handed over, and so does its pong: chunks, buffers, the queue,
        and at most one message of `message_bytes` that is not sent in chunks. An outage holds them up three times as
        long as it lasts, for TCP's back-off.
        """
        wait_s = self.answer_s(message_bytes)
        return max(PING_S, wait_s), max(PING_S, 2 * wait_s)

    def answer_s(self, message_bytes: int = 0) -> float:
        """Return how many seconds a full link may take for a ping and its pong, as `keepalive` says."""
        wait_s = 0.0
        for spec in (self.up, self.down):
            backlog = 4 * self.chunk_bytes + SLACK_BYTES + message_bytes
            rate = max(spec.goodput_bytes_per_s, 1.0)
            wait_s += backlog / rate + spec.queue_s + spec.delay_s + spec.jitter_s
            wait_s += 3 * spec.longest_outage_s / 2
        return wait_s


def parse_schedule(text: str) -> Schedule:
    """Read `up 30s, down 5s[, up 10s, down 2s …]`, which repeats for ever."""
    words = [part.strip() for part in text.split(",")]
    pairs = [", ".join(words[at : at + 2]) for at in range(0, len(words), 2)]
    steps = []
    for pair in pairs:
        match = _STEP.match(pair)
        if match is None:
            raise LinkConfigError(f"schedule {text!r} cannot be read at {pair!r}: write it like 'up 30s, down 5s'")
        steps.append((parse_duration(match[1]), parse_duration(match[2])))
    return Schedule(tuple(steps))


def parse_drop(text: str, how: str | None = None) -> DropRule:
    """Read `20kB` or `30s`, after which a connection ends by `how` (reset unless told)."""
    ending = next((name for name in ENDINGS if name == (how or "reset")), None)
    if ending is None:
        raise LinkConfigError(f"a drop cannot end by {how!r}: use one of {', '.join(ENDINGS)}")
    if re.search(r"[0-9. ][kmg]?i?b$", text, re.IGNORECASE):
        return DropRule(after_bytes=int(parse_size(text)), how=ending)
    try:
        return DropRule(after_s=parse_duration(text), how=ending)
    except LinkConfigError as error:
        raise LinkConfigError(
            f"drop-every {text!r} is neither a size like 20kB nor a time like 30s: {error}"
        ) from error


def _rates(text: str) -> tuple[float, float]:
    # `32KiB/s` has a slash of its own: what follows `/s` is the other direction.
    parts = re.split(r"/(?!s\b)", text)
    if len(parts) > 2:
        raise LinkConfigError(f"bandwidth {text!r} has more than two parts: write up/down like 256kbps/1mbps")
    rates = [parse_rate(part) for part in parts]
    if 0 in rates:
        raise LinkConfigError(f"bandwidth {text!r} lets nothing pass: give a rate above 0 like 256kbps")
    return rates[0], rates[-1]


def _outage(mean_up: str | None, mean_down: str | None, schedule: str | None) -> OutageSpec | None:
    if schedule is not None and (mean_up or mean_down):
        raise LinkConfigError("a schedule and mean up and down times exclude each other")
    if schedule is not None:
        return parse_schedule(schedule)
    if (mean_up is None) != (mean_down is None):
        raise LinkConfigError("mean-up and mean-down belong together: give both")
    if mean_up is None or mean_down is None:
        return None
    return GilbertElliott(parse_duration(mean_up), parse_duration(mean_down))


def _direction(spec: LinkSpec, texts: Mapping[str, str], rate_key: str) -> LinkSpec:
    if rate_key in texts:
        spec = replace(spec, rate_bytes_per_s=parse_rate(texts[rate_key]), trace=None)
    if "rtt" in texts:
        spec = replace(spec, delay_s=parse_duration(texts["rtt"]) / 2)
    if "jitter" in texts:
        spec = replace(spec, jitter_s=parse_duration(texts["jitter"]))
    if "loss" in texts:
        spec = replace(spec, loss=parse_percent(texts["loss"]))
    if "queue" in texts:
        spec = replace(spec, queue_s=parse_duration(texts["queue"]))
    if "overhead" in texts:
        spec = replace(spec, overhead_bytes=parse_size(texts["overhead"]))
    outage = _outage(texts.get("mean-up"), texts.get("mean-down"), texts.get("schedule"))
    if outage is not None:
        spec = replace(spec, outage=outage)
    if "drop-every" in texts:
        spec = replace(spec, drop=parse_drop(texts["drop-every"], texts.get("drop-how")))
    elif "drop-how" in texts:
        raise LinkConfigError("drop-how says how a connection ends: say when with drop-every")
    return spec


def apply_settings(profile: Profile, texts: Mapping[str, str]) -> Profile:
    """Return the profile with what `texts` (keys of `KEYS`, text with units) says in place of its own."""
    unknown = next((key for key in texts if key not in KEYS), None)
    if unknown is not None:
        raise LinkConfigError(f"unknown key {unknown!r}{_nearest(unknown, KEYS)}")
    return replace(
        profile,
        up=_direction(profile.up, texts, "up"),
        down=_direction(profile.down, texts, "down"),
        source=texts.get("source", profile.source),
    )


def parse_profiles(text: str, where: str) -> dict[str, Profile]:
    """Read profiles in TOML; raises `LinkConfigError` naming `where`, the profile and the unknown key."""
    return profiles_of(_tables(text, where), where)


def profiles_of(tables: Mapping[str, Any], where: str) -> dict[str, Profile]:
    """Return the profiles that TOML's tables say, by their names; raises as `parse_profiles`."""
    profiles = {}
    for name, table in tables.items():
        if not isinstance(table, Mapping):
            raise LinkConfigError(f"{where}: {name!r} must be a table like [{name}]")
        for key, value in table.items():
            if not isinstance(value, str):
                raise LinkConfigError(f"{where}: {name}.{key} must be text with a unit, not {value!r}")
        if not name.strip() or "," in name or name != name.strip():
            # Commas part the names that `fl-edge swarm --links` is given.
            raise LinkConfigError(f"{where}: a link cannot be called {name!r}: leave out commas and outer spaces")
        try:
            profile = apply_settings(Profile(name, LinkSpec(), LinkSpec(), where), table)
            if 0 in (profile.up.rate_bytes_per_s, profile.down.rate_bytes_per_s):
                raise LinkConfigError("a rate of 0 lets nothing pass: give one above 0 like 256kbps")
        except LinkConfigError as error:
            raise LinkConfigError(f"{where}: profile {name!r}: {error}") from error
        profiles[name] = profile
    return profiles


def read_tables(path: Path) -> dict[str, Any]:
    """Return the tables of a file with profiles; raises `LinkConfigError` where it cannot be read, or is not TOML."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise LinkConfigError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise LinkConfigError(f"cannot read {path}: {error}") from error
    return _tables(text, str(path))


def _tables(text: str, where: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # also a number of thousands of digits
        raise LinkConfigError(f"{where} is not TOML: {error}") from error


def read_profiles(path: Path) -> dict[str, Profile]:
    """Return the profiles of a file; raises `LinkConfigError` naming it."""
    return profiles_of(read_tables(path), str(path))


@functools.cache
def named_profiles() -> Mapping[str, Profile]:
    """Return the built-in profiles, in the order of `profiles.toml`."""
    text = resources.files("featherfed.bandwidth_sim").joinpath("profiles.toml").read_text(encoding="utf-8")
    return MappingProxyType(parse_profiles(text, "profiles.toml"))


def known_profiles(own: Mapping[str, Profile] = NONE) -> dict[str, Profile]:
    """Return the built-in profiles and one's own, which may replace them."""
    return {**named_profiles(), **own}


def _nearest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, known, 1, 0.3)
    return f": did you mean {close[0]!r}?" if close else ""


def find_profile(name: str, own: Mapping[str, Profile] = NONE) -> Profile:
    """Return a profile by name, one's own first; a rate, like `256kbps`, is the name of a link that has it.

    Raises `LinkConfigError` that offers the nearest name.
    """
    known = known_profiles(own)
    if name not in known and name[:1].isdigit():
        with contextlib.suppress(LinkConfigError):
            up, down = _rates(name)
            return Profile(name, LinkSpec(rate_bytes_per_s=up), LinkSpec(rate_bytes_per_s=down), "its name")
    if name not in known:
        raise LinkConfigError(f"unknown link {name!r}{_nearest(name, known)} ('fl-link list' prints all)")
    return known[name]


def profile_from_flags(
    *,
    bandwidth: str | None = None,
    link: str | None = None,
    own: Mapping[str, Profile] = NONE,
    latency: str | None = None,
    jitter: str | None = None,
    loss: str | None = None,
    queue: str | None = None,
    mean_up: str | None = None,
    mean_down: str | None = None,
    schedule: str | None = None,
    drop_every: str | None = None,
    drop_how: str | None = None,
    trace_up: Path | None = None,
    trace_down: Path | None = None,
) -> Profile | None:
    """Return the link that the flags describe, over the named one if any; None if there are no flags.

    `own` are links that may be named besides ours. `latency` is one way. Raises `LinkConfigError` with one sentence.
    """
    rtt = None if latency is None else f"{2 * parse_duration(latency)}s"
    texts = {
        "rtt": rtt,
        "jitter": jitter,
        "loss": loss,
        "queue": queue,
        "mean-up": mean_up,
        "mean-down": mean_down,
        "schedule": schedule,
        "drop-every": drop_every,
        "drop-how": drop_how,
    }
    given = {key: text for key, text in texts.items() if text is not None}
    if link is None and bandwidth is None and trace_up is None and trace_down is None and not given:
        return None
    profile = Profile(bandwidth or "flags", LinkSpec(), LinkSpec(), "flags")
    if link is not None:
        profile = find_profile(link, own)
    if bandwidth is not None:
        if trace_up is not None and trace_down is not None:
            raise LinkConfigError("two traces take the place of a bandwidth: leave --bandwidth out")
        up, down = _rates(bandwidth)
        profile = replace(
            profile,
            up=replace(profile.up, rate_bytes_per_s=up, trace=None),
            down=replace(profile.down, rate_bytes_per_s=down, trace=None),
        )
    if trace_up is not None:
        profile = replace(profile, up=_traced(profile.up, trace_up))
    if trace_down is not None:
        profile = replace(profile, down=_traced(profile.down, trace_down))
    return apply_settings(profile, given)


def _traced(spec: LinkSpec, path: Path) -> LinkSpec:
    # mahimahi's opportunity is one IP packet and 4 bytes of tunnel: exactly one segment with its headers.
    return replace(spec, trace=read_trace(path), rate_bytes_per_s=None, overhead_bytes=PACKET_BYTES - MSS)
