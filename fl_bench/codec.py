"""`fl-bench codec`: what each codec spec costs and loses, measured here."""

import json
import os
from dataclasses import asdict
from pathlib import Path

import click

# Figures are for one core, and this is read when numpy is first imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

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
@click.option("--size", type=click.IntRange(1), default=1 << 20, show_default=True, help="Values that are drawn.")
@click.option("--seeds", type=click.IntRange(20), default=32, show_default=True, help="Of error and bias, 20 or more.")
@click.option(
    "--data-dir", type=click.Path(), help="Folder with data sets, like MNIST.  [default: FL_DATA_DIR, else a cache]"
)
@click.option("--list", "list_all", is_flag=True, help="Print stages and presets, and measure nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--write", "document", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Fill tables.")
@click.option(
    "--accuracy",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="With --write: fill the accuracy of the runs in DIR instead, from scenarios/codec_accuracy.toml.",
)
def codec(
    specs: tuple[str, ...], kinds: str, size: int, seeds: int, data_dir: str | None, list_all: bool, as_json: bool,
    document: Path | None, accuracy: Path | None,
) -> None:  # fmt: skip
    """Measure codecs: bits, error, bias, and the speed of one core beside a plain memory copy.

    Speeds are in megabytes of float32 a second; fold is the server's, a fiftieth of a round of fifty phones.
    """
    from featherfed.codec.pipeline import Pipeline
    from featherfed.errors import ConfigError, DataError, LocalError
    from featherfed.fl_bench.codec_figures import DATA, measure, vector
    from featherfed.fl_bench.codec_tables import accuracy_table, figures_table, listing, presets_table, stages_table
    from featherfed.fl_bench.documents import fill

    if accuracy is not None and document is None:
        raise click.UsageError("--accuracy needs --write FILE to fill")
    if list_all:
        click.echo(json.dumps(listing(), indent=1) if as_json else f"{stages_table()}\n\n{presets_table()}")
        return
    try:
        if accuracy is not None and document is not None:
            fill(document, {"codec accuracy": accuracy_table(accuracy)})
            return
        wanted = [kind.strip() for kind in kinds.split(",")]
        for kind in wanted:
            if kind not in DATA:
                raise ConfigError(f"unknown data {kind!r}; there are {', '.join(DATA)}")
        for spec in specs:
            Pipeline.parse(spec)
        rows = []
        for kind in wanted:
            try:
                layout, values = vector(kind, size, data_dir)
            except DataError as error:
                if kinds != KINDS:
                    raise
                click.echo(f"without {kind}: {error}", err=True)
                continue
            for spec in specs or SPECS:
                rows.append(measure(spec, kind, layout, values, seeds))
                click.echo(f"{kind}: {spec}", err=True)
        if document is not None:
            tables = {"codec stages": stages_table(), "codec presets": presets_table()}
            fill(document, {**tables, "codec figures": figures_table(rows)})
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    except LocalError as error:
        raise click.ClickException(str(error)) from error
    click.echo(json.dumps([asdict(row) for row in rows], indent=1) if as_json else figures_table(rows))
