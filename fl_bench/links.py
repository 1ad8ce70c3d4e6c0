"""`fl-bench links`: how true the emulated links are, beside theory and beside the kernel's own shaper."""

import asyncio
import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from bandwidth_sim.errors import LinkConfigError
from bandwidth_sim.measure import measure
from bandwidth_sim.profile import Profile, find_profile, named_profiles, profile_from_flags
from featherfed.errors import LocalError
from fl_bench.documents import fill
from fl_bench.kernel_link import KernelRefusedError, kernel_goodput

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


def _table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| link | bytes | theory kbit/s | achieved kbit/s | error | kernel kbit/s | RTT nominal ms | RTT ms "
        "| write returns early s | lateness p99 ms | worst ms | CPU s/MB |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        kernel = row["kernel_bytes_per_s"]
        cells = [
            row["link"],
            str(row["bytes"]),
            f"{row['nominal_bytes_per_s'] / 125:.2f}",
            f"{row['goodput_bytes_per_s'] / 125:.2f}",
            f"{row['goodput_error']:+.2%}",
            "–" if kernel is None else f"{kernel / 125:.2f}",
            f"{row['nominal_rtt_s'] * 1000:.1f}",
            f"{row['rtt_s'] * 1000:.1f}",
            f"{row['early_s']:.2f}",
            f"{row['p99_late_s'] * 1000:.1f}",
            f"{row['worst_late_s'] * 1000:.1f}",
            f"{row['cpu_s_per_mb']:.3f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _presets() -> str:
    lines = ["| name | up kbit/s | down kbit/s | RTT ms | jitter ms | loss | source |", "|---|--:|--:|--:|--:|--:|---|"]
    for profile in named_profiles().values():
        rates = [f"{spec.mean_wire_bytes_per_s / 125:g}" for spec in (profile.up, profile.down)]
        times = [f"{seconds * 1000:g}" for seconds in (profile.rtt_s, profile.up.jitter_s)]
        lines.append(f"| {' | '.join([profile.name, *rates, *times, f'{profile.up.loss:.1%}', profile.source])} |")
    return "\n".join(lines)


@click.command()
@click.option("--links", "names", default=DEFAULT_LINKS, show_default=True, help="Named links and rates, with commas.")
@click.option("--bytes", "num_bytes", default=1_000_000, show_default=True, help="How many bytes each upload has.")
@click.option("--kernel/--no-kernel", default=True, show_default=True, help="Also measure tc tbf (needs root).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--write", "document", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Fill a table.")
def links(names: str, num_bytes: int, kernel: bool, as_json: bool, document: Path | None) -> None:
    """Measure links on real sockets: goodput, round trip, lateness and cost beside their nominal figures."""
    if num_bytes < 1:
        raise click.UsageError(f"--bytes must be at least 1, not {num_bytes}")
    try:
        profiles = [_profile(name.strip()) for name in names.split(",")]
    except LinkConfigError as error:
        raise click.UsageError(str(error)) from error
    endless = next((each.name for each in profiles if not math.isfinite(each.up.goodput_bytes_per_s)), None)
    if endless is not None:
        raise click.UsageError(f"link {endless!r} has no rate to measure")
    rows = [_row(profile, num_bytes, kernel=kernel) for profile in profiles]
    click.echo(json.dumps(rows, indent=1) if as_json else _table(rows))
    if document is not None:
        try:
            fill(document, {"fl-bench links": _table(rows), "named links": _presets()})
        except LocalError as error:
            raise click.ClickException(str(error)) from error
