"""`fl-bench codec`: what each codec spec costs and loses, measured here."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from featherfed.fl_bench.codec_figures import Figures

# Figures are for one core, and this is read when numpy is first imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

SIZE, SEEDS = 1 << 20, 32
KINDS = "normal,lognormal,update-2nn,update-cnn"
SPECS = (
    "float32", "float16", "bfloat16",
    "quantize(1)", "rotate | quantize(1)", "rotate | quantize(2)", "rotate | quantize(2) | entropy",
    "rotate | eden(1)", "rotate | eden(2)", "rotate | eden(3)", "rotate | eden(4)", "eden-half", "eden-tiny",
    "rotate | vertex(16)", "vertex-tiny", "rotate_shared | stochastic(1)", "shared-2bit", "shared-4bit",
    "qsgd(4)", "qsgd-4bit", "sign-feedback", "topk(1/400)", "topk(1/400) | ternary", "stc-400",
    "subsample(1/16)", "konecny-256x", "subsample(1/16) | rotate | quantize(2) | entropy",
    "konecny-mask", "konecny-lowrank", "intrinsic-1000",
)  # fmt: skip
"""What is measured where no `--spec` is given: every stage and preset, and what they are compared with."""


@click.command()
@click.option("--spec", "specs", multiple=True, help="Codec spec or preset; may be repeated.  [default: all]")
@click.option("--data", "kinds", default=KINDS, show_default=True, help="Kinds of data, with commas.")
@click.option("--size", type=click.IntRange(1), default=SIZE, show_default=True, help="Values that are drawn.")
@click.option("--seeds", type=click.IntRange(20), default=SEEDS, show_default=True, help="Of error and bias.")
@click.option(
    "--data-dir", type=click.Path(), help="Folder with data sets, like MNIST.  [default: FL_DATA_DIR, else a cache]"
)
@click.option(
    "--sums", is_flag=True, help="Measure means of cohorts of 10, 100 and 1,000 phones that are summed before decoding."
)
@click.option("--list", "list_all", is_flag=True, help="Print stages and presets, and measure nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def codec(
    specs: tuple[str, ...], kinds: str, size: int, seeds: int, data_dir: str | None, sums: bool, list_all: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """Measure codecs: bits, error, bias, and the speed of one core beside a plain memory copy.

    Speeds are in megabytes of float32 a second; fold is the server's, a fiftieth of a round of fifty phones. With
    --sums the errors of means are measured, of specs that can be summed under a mask and of some that cannot.
    """
    from featherfed.errors import ConfigError, LocalError
    from featherfed.fl_bench.codec_sums import measured_sums
    from featherfed.fl_bench.codec_tables import figures_table, listing, presets_table, stages_table, sums_table

    if list_all:
        click.echo(json.dumps(listing(), indent=1) if as_json else f"{stages_table()}\n\n{presets_table()}")
        return
    if sums:
        if specs:
            raise click.UsageError("--sums measures specs of its own; leave out --spec")
        means = []
        for mean in measured_sums():
            means.append(mean)
            click.echo(f"{mean.cohort} phones: {mean.spec}", err=True)
        click.echo(json.dumps([asdict(mean) for mean in means], indent=1) if as_json else sums_table(means))
        return
    try:
        rows = measured(specs or SPECS, kinds, size, seeds, data_dir)
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    except LocalError as error:
        raise click.ClickException(str(error)) from error
    click.echo(json.dumps([asdict(row) for row in rows], indent=1) if as_json else figures_table(rows))


def measured(specs: Sequence[str], kinds: str, size: int, seeds: int, data_dir: str | None) -> list["Figures"]:
    """Measure specs on kinds of data; what is not here is left out, unless it was asked for; raises `ConfigError`."""
    from featherfed.codec.pipeline import Pipeline
    from featherfed.errors import ConfigError, DataError
    from featherfed.fl_bench.codec_figures import DATA, measure, vector

    wanted = [kind.strip() for kind in kinds.split(",")]
    for kind in wanted:
        if kind not in DATA:
            raise ConfigError(f"unknown data {kind!r}; there are {', '.join(DATA)}")
    for spec in specs:
        if Pipeline.parse(spec).summed:
            raise ConfigError(f"{spec} has no single updates to measure; --sums measures means of cohorts")
    rows = []
    for kind in wanted:
        try:
            layout, values = vector(kind, size, data_dir)
        except DataError as error:
            if kinds != KINDS:
                raise
            click.echo(f"without {kind}: {error}", err=True)
            continue
        for spec in specs:
            rows.append(measure(spec, kind, layout, values, seeds))
            click.echo(f"{kind}: {spec}", err=True)
    return rows
