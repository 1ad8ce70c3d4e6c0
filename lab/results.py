"""`python -m lab results`: docs/RESULTS.md from runs of the paper scenarios, and whether the papers' orderings hold."""

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from featherfed.errors import ConfigError, FeatherfedError
from featherfed.fl_bench.codec_tables import markdown
from featherfed.fl_bench.plots import measure_by_bytes, save_png
from featherfed.fl_bench.results import (
    FIGURES,
    Strategy,
    by_bytes,
    ratio,
    reached_among,
    read_runs,
    targets_among,
)
from featherfed.fl_bench.scenario import COMMAND
from featherfed.fl_bench.terminal import bytes_text, duration
from featherfed.server.measures import Target

TITLES = {
    "best_97": "97 % on IID shards",
    "best_iid": "98 % on IID shards",
    "best_99": "99 % on IID shards",
    "best_noniid": "98 % on two-shard non-IID phones",
    "secure_iid": "97 % on IID shards, under masks",
    "best_2nn": "McMahan's 2nn to 97 %",
    "best_cnn": "McMahan's cnn to 99 %",
    "defaults": "97 % without flags",
    "paper_structured": "Structured updates: low rank and random mask",
    "paper_sketched": "Sketched updates: subsample × quantize × rotation",
    "paper_partitions": "IID, two-shard and Dirichlet phones",
    "paper_beyond": "What beats them: EDEN, vertex, STC, shared rotation, structured + sketched",
    "paper_cnn": "The same on McMahan's cnn",
}
VERDICTS = "What the papers say"
YES, EQUAL, NO = "yes", "equal", "**no**"
KONECNY = "Konečný et al. 2016"
MARGIN = 0.005
"""Accuracies closer than half a point count as equal: so much do seeds of a short run differ by."""


@dataclass(frozen=True, slots=True)
class Claim:
    """`better` reaches at least the accuracy of `worse` after the same rounds; both name strategies of a scenario."""

    scenario: str
    source: str
    sentence: str
    better: str
    worse: str


def _falling(stage: str) -> list[Claim]:
    sentence = f"more of {stage} is better"
    parts = ("1/2", "1/4", "1/8", "1/16")
    return [
        Claim("paper_structured", KONECNY, sentence, f"{stage}({more})", f"{stage}({less})")
        for more, less in itertools.pairwise(parts)
    ]


CLAIMS = (
    *_falling("mask"),
    *_falling("lowrank"),
    *(
        Claim("paper_structured", KONECNY, "a random mask beats low rank at its size", f"mask({f})", f"lowrank({f})")
        for f in ("1/4", "1/8", "1/16")
    ),
    Claim("paper_sketched", KONECNY, "a rotation helps a coarse quantizer", "rotate | quantize(1)", "quantize(1)"),
    Claim(
        "paper_sketched", KONECNY, "a rotation helps a coarse quantizer",
        "subsample(1/16) | rotate | quantize(2)", "subsample(1/16) | quantize(2)",
    ),
    Claim(
        "paper_sketched", KONECNY, "sketching beats a mask of its share",
        "subsample(1/16) | rotate | quantize(2)", "mask(1/16)",
    ),
    Claim(
        "paper_cnn", KONECNY, "sketching beats a mask of its share",
        "subsample(1/16) | rotate | quantize(2)", "mask(1/16)",
    ),
    Claim("paper_cnn", KONECNY, "a random mask beats low rank at its size", "mask(1/16)", "lowrank(1/16)"),
    Claim("paper_partitions", "McMahan et al. 2017", "IID is easier than two shards", "iid", "shards:2"),
    Claim("paper_partitions", "Hsu et al. 2019", "IID is easier than Dirichlet 0.3", "iid", "dirichlet:0.3"),
    Claim("paper_partitions", "Hsu et al. 2019", "Dirichlet 0.3 is easier than shards", "dirichlet:0.3", "shards:2"),
    Claim(
        "paper_beyond", "Vargaftik et al. 2022", "EDEN beats the min-max quantizer",
        "rotate | eden(1)", "rotate | quantize(1)",
    ),
    Claim(
        "paper_beyond", "featherfed", "vertex beats subsampled EDEN at a sixteenth of a bit",
        "exact(0) | flat | rotate | vertex(128)", "exact(0) | flat | subsample(1/16) | rotate | eden(1)",
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Verdict:
    """A claim beside what was measured: mean accuracy over seeds after the last round of both."""

    claim: Claim
    better: float
    worse: float

    @property
    def holds(self) -> bool:
        """Whether the claim holds up to `MARGIN`."""
        return self.better >= self.worse - MARGIN

    @property
    def word(self) -> str:
        """`YES`, `EQUAL` up to `MARGIN`, or `NO`."""
        if abs(self.better - self.worse) <= MARGIN:
            return EQUAL
        return YES if self.holds else NO


def judge(groups: dict[str, Sequence[Strategy]]) -> list[Verdict]:
    """Return a verdict for each claim whose two strategies were run."""
    verdicts = []
    for claim in CLAIMS:
        found = {name: _find(groups.get(claim.scenario, ()), name) for name in (claim.better, claim.worse)}
        better, worse = found[claim.better], found[claim.worse]
        if better is not None and worse is not None:
            rounds = min(_rounds(better), _rounds(worse))
            verdicts.append(Verdict(claim, _accuracy_after(better, rounds), _accuracy_after(worse, rounds)))
    return verdicts


def _find(strategies: Sequence[Strategy], name: str) -> Strategy | None:
    return next((each for each in strategies if name in (each.config.spelled("uplink"), each.config.partition)), None)


def _rounds(strategy: Strategy) -> int:
    return min(len(run.report["rounds"]) for run in strategy.runs)


def _accuracy_after(strategy: Strategy, rounds: int) -> float:
    reached: list[float] = [
        max(row["accuracy"] for row in run.report["rounds"][:rounds] if row.get("accuracy") is not None)
        for run in strategy.runs
    ]
    return sum(reached) / len(reached)


def section(stem: str, strategies: Sequence[Strategy], plot: str, command: str) -> str:
    """Return the Markdown of one scenario: how it was run, its table, its plot."""
    config = strategies[0].config
    seeds = sorted({run.config.seed for strategy in strategies for run in strategy.runs})
    way = "virtual time" if all(run.virtual for strategy in strategies for run in strategy.runs) else "real processes"
    linked = any("link" in run.facts.get("phones", {}) for strategy in strategies for run in strategy.runs)
    asked = reached_among(strategies, targets_among(strategies))[-3:]
    rows = [_row(each, strategies, target, linked=linked) for target in asked for each in by_bytes(strategies, target)]
    rows += [_row(each, strategies, None, linked=linked) for each in strategies]
    return "\n".join(
        [
            f"## {TITLES.get(stem, stem)}",
            "",
            f"`{config.problem}`, {config.phones} phones, cohort {config.spelled('cohort')},"
            f" epochs {config.spelled('epochs')},"
            f" batch {config.spelled('batch_size') or 'all'}, learning rate {config.spelled('lr')}"
            f" (× {config.lr_decay:g} a round),"
            f"{''.join(f' {name} {value},' for name, value in config.set.items())}"
            f"{f' mean over models of memory {config.server_average:g},' if config.server_average else ''}"
            f" at most {config.rounds} rounds, downlink `{config.downlink}`; seeds {', '.join(map(str, seeds))}; {way}."
            f" Again: `{command}`.",
            "",
            markdown(list(COLUMNS), rows),
            "",
            f"![accuracy against bytes both ways, up and down]({plot})",
            "",
        ]
    )


COLUMNS = (
    "to:", "strategy:", "rounds", "uplink", "downlink", "both ways", "each seed", "× float32", "handshakes",
    "uplink payload", "uplink × float32", "time",
)  # fmt: skip
"""The papers give the uplink; what a phone's data plan pays for is both ways."""


def _row(strategy: Strategy, strategies: Sequence[Strategy], target: Target | None, *, linked: bool) -> list[str]:
    """Return what a strategy spent until a target, or without one in its whole runs."""
    seeds: list[float | None] = []
    times: dict[str, float | None] = {}
    if target is None:
        title = f"the end: {strategy.best_text()}"
        figures = {name: strategy.whole(name).median for name in FIGURES}
    else:
        title = target.measure(strategies[0].measures).short(target.value)
        figures = {name: strategy.to_target(target, name).median for name in FIGURES}
        seeds = strategy.each(target, "socket")
        times = {name: ratio(strategy, strategies, target, name) for name in ("uplink_socket", "socket")}
    told = {name: bytes_text(value) for name, value in figures.items()}
    less = {name: f"{value:.3g}" for name, value in times.items() if value is not None}
    return [
        title, strategy.name, "–" if figures["round"] is None else f"{figures['round']:g}", told["uplink_socket"],
        told["downlink_socket"], told["socket"], ", ".join(map(bytes_text, seeds)) if len(seeds) > 1 else "–",
        less.get("socket", "–"), told["handshake"], told["uplink_payload"], less.get("uplink_socket", "–"),
        duration(figures["seconds"]) if linked else "–",
    ]  # fmt: skip


def document(groups: dict[str, Sequence[Strategy]], plots: str, commands: dict[str, str]) -> str:
    """Return the whole page."""
    return "\n".join(
        [
            "# Results",
            "",
            "Written by `make results` from runs of the scenarios; no figure is typed by hand.",
            "Bytes are what the sockets of all phones carried, from the first byte to the end of the first round whose"
            " model has the accuracy on the full test set; both ways is uplink + downlink. Handshakes (upgrade,"
            " Hello and Welcome, once a connection, up and down) are beside that sum and not in it"
            " ([what is counted](BENCHMARKS.md#what-is-counted)). Payload is the updates alone. Papers count uplink:"
            " theirs are the columns of that name. Figures of several seeds are medians; – where a seed missed it.",
            "Where a section says few rounds or epochs, it is a cut-down run: its orderings are to be believed, and its"
            " accuracies are not what the strategies reach in the end.",
            "",
            *(section(stem, strategies, f"{plots}/{stem}.png", commands[stem]) for stem, strategies in groups.items()),
            papers_say([_verdict_row(each) for each in judge(groups)]),
        ]
    )


def _verdict_row(verdict: Verdict) -> list[str]:
    claim = verdict.claim
    return [
        claim.scenario, claim.source, claim.sentence, f"`{claim.better}` {verdict.better:.2%}",
        f"`{claim.worse}` {verdict.worse:.2%}", verdict.word,
    ]  # fmt: skip


def papers_say(rows: list[list[str]]) -> str:
    """Return the Markdown of the verdicts, a row of cells each."""
    words = [row[-1] for row in rows]
    return "\n".join(
        [
            f"## {VERDICTS}",
            "",
            f"Of {len(rows)} orderings, {words.count(YES)} are as claimed, {words.count(EQUAL)} make no difference here"
            f" that could be told, and {words.count(NO)} are the other way round."
            f" Best accuracies up to the last round that both ran, means over seeds; {MARGIN:.1%} apart is equal.",
            "",
            markdown(["scenario:", "source:", "claim:", "better:", "worse:", "holds here:"], rows),
            "",
        ]
    )


EARLIER = (
    "*Of an earlier release, which counted the uplink: payload is the updates, socket what connections carried up,"
    " and handshakes are those of whole runs.*"
)


BOTH_WAYS = "| both ways |"
"""The column of a table that counts them."""


def renewed(page: str, fresh: str) -> str:
    """Return `page` with the head and the sections of `fresh`; sections that only `page` has stay.

    Those that count the uplink alone are marked as of an earlier release. Verdicts stay, too, on scenarios of which
    `fresh` has none.
    """
    old, (head, *new) = _sections(page)[1:], _sections(fresh)
    sections = {_title(each): _marked(each) for each in old} | {_title(each): each for each in new}
    rows = _verdict_rows(sections[VERDICTS])
    judged = {row[0] for row in rows}
    for section in old:
        if _title(section) == VERDICTS:
            rows += [row for row in _verdict_rows(section) if row[0] not in judged]
    places = [claim.scenario for claim in CLAIMS]
    sections[VERDICTS] = papers_say(sorted(rows, key=lambda row: places.index(row[0])))
    order = [*TITLES.values(), *(title for title in sections if title != VERDICTS), VERDICTS]
    return head + "".join(sections[title] for title in dict.fromkeys(order) if title in sections)


def _verdict_rows(section: str) -> list[list[str]]:
    """Return the cells of verdicts, as `papers_say` wants them; none of a scenario that no claim is about any more."""
    known = {claim.scenario for claim in CLAIMS}
    rows = [re.split(r"(?<!\\) \| ", line[2:-2]) for line in section.splitlines() if line.startswith("| ")]
    return [[cell.replace("\\|", "|") for cell in row] for row in rows if row[0] in known]


def _sections(page: str) -> list[str]:
    return re.split(r"^(?=## )", page, flags=re.MULTILINE)


def _title(section: str) -> str:
    return section.split("\n", 1)[0].removeprefix("## ")


def _marked(section: str) -> str:
    if EARLIER in section or BOTH_WAYS in section or _title(section) == VERDICTS:
        return section
    title, rest = section.split("\n", 1)
    return f"{title}\n\n{EARLIER}\n{rest}"


def _command(grid: Path) -> str:
    path = grid / COMMAND
    return path.read_text() if path.exists() else f"fl-bench run scenarios/{grid.name}.toml"


@click.command()
@click.argument("grids", nargs=-1, required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--write", "path", type=click.Path(dir_okay=False, path_type=Path), help="Write this page, plots beside it."
)
@click.option("--keep", is_flag=True, help="Keep the page's sections of scenarios that are not among the GRIDS.")
@click.option("--check", is_flag=True, help="Fail where a paper's ordering does not hold, or was not run.")
def results(grids: tuple[Path, ...], path: Path | None, keep: bool, check: bool) -> None:
    """Judge the GRIDS, folders of fl-bench run, by what the papers say, and write docs/RESULTS.md."""
    try:
        groups: dict[str, Sequence[Strategy]] = {grid.name: read_runs([grid]) for grid in grids}
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    except FeatherfedError as error:
        raise click.ClickException(str(error)) from error
    verdicts = judge(groups)
    for each in verdicts:
        holds = "holds" if each.word == YES else "about equal" if each.holds else "DOES NOT HOLD"
        claim = each.claim
        click.echo(
            f"{holds}: {claim.sentence} ({claim.source}): {claim.better} {each.better:.2%},"
            f" {claim.worse} {each.worse:.2%}"
        )
    if path is not None:
        plots = path.parent / "plots"
        plots.mkdir(parents=True, exist_ok=True)
        for stem, strategies in groups.items():
            save_png(measure_by_bytes(strategies), plots / f"{stem}.png", dpi=110)
        page = document(groups, plots.name, {grid.name: _command(grid) for grid in grids})
        if keep and path.exists():
            page = renewed(path.read_text(encoding="utf-8"), page)
        path.write_text(page, encoding="utf-8")
    if check and not verdicts:
        raise click.ClickException("no two strategies of a claim were run: nothing is checked")
    judged = [each.claim for each in verdicts]
    for claim in CLAIMS if check else ():
        # A scenario that has lost a strategy would pass for want of anything to check.
        if claim.scenario in groups and claim not in judged:
            raise click.ClickException(
                f"{claim.scenario} did not run both {claim.better} and {claim.worse}: nothing says whether"
                f" {claim.sentence}"
            )
    if check and not all(each.holds for each in verdicts):
        raise click.ClickException("orderings that the papers claim do not hold; see above")
