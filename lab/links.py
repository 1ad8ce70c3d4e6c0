"""`python -m lab links`: how true the emulated links are, beside theory and beside the kernel's own shaper."""

import asyncio
import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from featherfed.bandwidth_sim.errors import LinkConfigError
from featherfed.bandwidth_sim.measure import measure
from featherfed.bandwidth_sim.profile import Profile, find_profile, named_profiles, profile_from_flags
from featherfed.errors import LocalError
from featherfed.fl_bench.codec_tables import markdown
from lab.documents import fill
from lab.kernel_link import KernelRefusedError, kernel_goodput

DEFAULT_LINKS = "256kbps,1mbps,20mbps,100mbps,2g,3g,4g,fios"


def _profile(name: str) -> Profile:
    if name[:1].isdigit() and name.endswith("bps"):
        profile = profile_from_flags(bandwidth=name)
        if profile is not None:
            return profile
    return find_profile(name)


def _row(profile: Profile, num_bytes: int, *, kernel: bool) -> dict[str, Any]:
    row: dict[str, Any] = asdict(asyncio.run(measure(profile, num_bytes)))
    row |= {"kernel_bytes_per_s": None, "kernel_skipped": None}
    rate, spec = profile.up.rate_bytes_per_s, profile.up
    if not kernel:
        row["kernel_skipped"] = "not asked for"
    elif rate is None or spec.loss or spec.outage or spec.delay_s:
        row["kernel_skipped"] = "tbf has a rate only: no delay, loss or outages"
    else:
        try:
            row["kernel_bytes_per_s"] = kernel_goodput(rate, num_bytes)
        except KernelRefusedError as error:
            row["kernel_skipped"] = str(error)
    return row


def _fidelity(rows: list[dict[str, Any]]) -> str:
    columns = [
        "link:", "bytes", "theory kbit/s", "achieved kbit/s", "error", "kernel kbit/s", "RTT nominal ms", "RTT ms",
        "write returns early s", "at most", "lateness p99 ms", "worst ms", "CPU s/MB",
    ]  # fmt: skip
    table = []
    for row in rows:
        kernel = row["kernel_bytes_per_s"]
        table.append(
            [
                row["link"],
                str(row["bytes"]),
                f"{row['nominal_bytes_per_s'] / 125:.2f}",
                f"{row['goodput_bytes_per_s'] / 125:.2f}",
                f"{row['goodput_error']:+.2%}",
                "–" if kernel is None else f"{kernel / 125:.2f}",
                f"{row['nominal_rtt_s'] * 1000:.1f}",
                f"{row['rtt_s'] * 1000:.1f}",
                f"{row['early_s']:.2f}",
                f"{row['most_early_s']:.2f}",
                f"{row['p99_late_s'] * 1000:.1f}",
                f"{row['worst_late_s'] * 1000:.1f}",
                f"{row['cpu_s_per_mb']:.3f}",
            ]
        )
    return markdown(columns, table)


def _presets() -> str:
    table = []
    for profile in named_profiles().values():
        rates = [f"{spec.mean_wire_bytes_per_s / 125:g}" for spec in (profile.up, profile.down)]
        times = [f"{seconds * 1000:g}" for seconds in (profile.rtt_s, profile.up.jitter_s)]
        table.append([profile.name, *rates, *times, f"{profile.up.loss:.1%}", profile.source])
    return markdown(["name:", "up kbit/s", "down kbit/s", "RTT ms", "jitter ms", "loss", "source:"], table)


def _agreement(link: Profile) -> tuple[list[dict[str, Any]], str]:
    from featherfed.server.config import RunConfig
    from lab.link_agreement import agreement

    pairs = agreement(link, RunConfig(problem="digits", phones=10, cohort=10, rounds=2, downlink="rotate | eden(4)"))
    rows, table = [], []
    for real, virtual in pairs:
        difference = real.took_s / virtual.took_s - 1
        rows.append({"real": asdict(real), "virtual": asdict(virtual), "difference": difference})
        table.append(
            [
                real.phone,
                str(real.round_number),
                str(real.payload_bytes),
                str(virtual.payload_bytes),
                f"{real.took_s:.3f}",
                f"{virtual.took_s:.3f}",
                f"{difference:+.2%}",
            ]
        )
    columns = ["phone:", "round", "payload bytes, real", "virtual", "upload s, real", "virtual", "difference"]
    return rows, markdown(columns, table)


def _load(clients: int) -> tuple[list[dict[str, Any]], str]:
    from lab.link_load import relay_load
    from lab.virtual_load import echo_fleet, idle_hour

    relayed = asyncio.run(relay_load(_profile("256kbps"), 200, 600_000))
    first, again = echo_fleet(1000, 10, seed=1), echo_fleet(1000, 10, seed=1)
    large, idle = echo_fleet(clients, 10, seed=1), idle_hour(100)
    rows = [asdict(each) for each in (relayed, first, again, large, idle)]
    same = "the same events, byte for byte" if first.digest == again.digest else "other events"
    table = [
        ["relay: 200 phones upload 600 kB each at 256kbps", "at most one core", f"{relayed.cores:.2f} cores"],
        ["relay: CPU for each MB of that", "", f"{relayed.cpu_s_per_mb:.3f} s"],
        ["relay: memory a connection", "under 60 kB", f"{relayed.memory_bytes / 1000:.0f} kB"],
        ["relay: lateness p99 of that", "", f"{relayed.p99_late_s * 1000:.1f} ms"],
        ["virtual: 1,000 echo clients twice", "identical", f"{first.events} events, {same}"],
        [
            f"virtual: {clients:,} echo clients, ten messages each",
            f"at most {clients * 0.006:.0f} s",
            f"{large.seconds:.1f} s, of CPU {large.cpu_s:.1f} s",
        ],
        [
            "virtual: an hour of 100 idle phones, pings included",
            "under 2 s",
            f"{idle.seconds:.2f} s, of CPU {idle.cpu_s:.2f} s",
        ],
    ]
    return rows, markdown(["what:", "aim:", "measured:"], table)


@click.command()
@click.option("--links", "names", default=DEFAULT_LINKS, show_default=True, help="Named links and rates, with commas.")
@click.option("--bytes", "num_bytes", default=1_000_000, show_default=True, help="How many bytes each upload has.")
@click.option("--kernel/--no-kernel", default=True, show_default=True, help="Also measure tc tbf (needs root).")
@click.option("--agreement", is_flag=True, help="In place of links: ten phones' upload times, real against virtual.")
@click.option("--load", is_flag=True, help="In place of links: fleets on the relay and in virtual time (2 min).")
@click.option("--clients", type=click.IntRange(1), default=10_000, show_default=True, help="Of --load in virtual time.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--write", "document", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Fill a table.")
def links(
    names: str,
    num_bytes: int,
    kernel: bool,
    agreement: bool,
    load: bool,
    clients: int,
    as_json: bool,
    document: Path | None,
) -> None:
    """Measure links on real sockets: goodput, round trip, lateness and cost beside their nominal figures."""
    if num_bytes < 1:
        raise click.UsageError(f"--bytes must be at least 1, not {num_bytes}")
    if agreement and load:
        raise click.UsageError("--agreement and --load are two measurements: give one")
    try:
        profiles = [_profile(name.strip()) for name in names.split(",")]
    except LinkConfigError as error:
        raise click.UsageError(str(error)) from error
    endless = next((each.name for each in profiles if not math.isfinite(each.up.goodput_bytes_per_s)), None)
    if endless is not None:
        raise click.UsageError(f"link {endless!r} has no rate to measure")
    if agreement:
        rows, table = _agreement(_profile("256kbps"))
        tables = {"lab links --agreement": table}
    elif load:
        rows, table = _load(clients)
        tables = {"lab links --load": table}
    else:
        rows = [_row(profile, num_bytes, kernel=kernel) for profile in profiles]
        table = _fidelity(rows)
        tables = {"lab links": table, "named links": _presets()}
    click.echo(json.dumps(rows, indent=1) if as_json else table)
    if document is not None:
        try:
            fill(document, tables)
        except LocalError as error:
            raise click.ClickException(str(error)) from error
