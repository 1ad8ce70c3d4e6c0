"""A link's rate and outages over time, as text and as a picture."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from featherfed.bandwidth_sim.link import Link, LinkSpec
from featherfed.bandwidth_sim.profile import Profile

_BARS = " ▁▂▃▄▅▆▇█"
_COLUMNS = 72
_PIECES = 400

Series = dict[str, npt.NDArray[np.float64]]


def _rates(spec: LinkSpec, seconds: float, seed: int) -> npt.NDArray[np.float64]:
    """Return goodput in bytes a second in each column of time, for a sender that always has more: (columns,)."""
    link, carried = Link(spec, seed), np.zeros(_COLUMNS)
    goodput = spec.goodput_bytes_per_s
    if not 0 < goodput < np.inf:
        return np.full(_COLUMNS, goodput)
    piece = max(1, int(goodput * seconds / (_COLUMNS * _PIECES)))
    while (departs_at_s := link.send(0.0, piece).departs_at_s) < seconds:
        carried[int(departs_at_s / seconds * _COLUMNS)] += piece
    return carried / (seconds / _COLUMNS)


def rates_over_time(profile: Profile, seconds: float, seed: int) -> Series:
    """Return the goodput of both directions over the first `seconds`, TCP's back-off after outages included."""
    return {"up": _rates(profile.up, seconds, seed), "down": _rates(profile.down, seconds, seed)}


def as_text(series: Series, seconds: float) -> str:
    """Return one line of bars for each direction; an empty column is an outage."""
    lines = []
    for name, rates in series.items():
        top = rates.max() or 1.0
        shares = np.ones(_COLUMNS) if np.isinf(top) else np.clip(rates / top, 0, 1)
        lines.append(f"{name:>4} │{''.join(_BARS[round(float(share) * (len(_BARS) - 1))] for share in shares)}│")
    return "\n".join([*lines, f"     0 s{f'{seconds:g} s':>{_COLUMNS - 1}}"])


def save_png(series: Series, seconds: float, profile: Profile, path: Path) -> None:
    """Write the plot as PNG, in kbit/s over seconds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3), layout="constrained")
    axes = figure.subplots()
    edges = np.linspace(0, seconds, _COLUMNS + 1)
    for name, rates in series.items():
        axes.stairs(np.where(np.isinf(rates), np.nan, rates) * 8 / 1000, edges, label=name, linewidth=1.5)
    axes.set(xlabel="seconds", ylabel="goodput, kbit/s", title=f"{profile.name}: {profile.source}")
    axes.set_ylim(bottom=0)
    axes.legend()
    figure.savefig(path, dpi=120)
