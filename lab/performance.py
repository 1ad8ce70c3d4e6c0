"""`python -m lab performance`: the figures of docs/PERFORMANCE.md, all from one run of one machine."""

import json
from pathlib import Path
from typing import Any

import click

from featherfed.fl_bench.codec_tables import markdown
from lab.documents import fill, kept_or_measured
from lab.long_work import long_work

STRATEGIES = (
    ("digits/lite", "vertex-small"), ("digits/lite", "rotate | eden(1)"),
    ("digits/lite", "rotate_shared | stochastic(1)"), ("digits/cnn", "rotate | eden(1)"),
    ("digits/cnn", "rotate_shared | stochastic(1)"),
)  # fmt: skip
PHONES = {"digits/lite": 200, "digits/cnn": 50}
CROWD = 2000
"""Phones that answer within one second, with the uplink that a run has unless told."""
IDLE_PHONES = (5000, 10000)

PARTS = ("training", "ingest", "memory")


def _collect(data_dir: str | None, parts: tuple[str, ...], *, small: bool) -> dict[str, Any]:
    from lab.ingest import DOWNLINK, measure_beside, measure_idle, measure_server
    from lab.swarm import measure as measure_swarm
    from lab.training import machine
    from lab.training import measure as measure_training

    data = "digits" if small else "mnist"
    names = [f"{data}/{model}" for model in (("lite",) if small else ("lite", "tiny", "2nn", "mlp", "cnn"))]
    strategies = STRATEGIES[: 1 if small else None] if "ingest" in parts else ()
    idle_phones = ((50,) if small else IDLE_PHONES) if "memory" in parts else ()
    result: dict[str, Any] = {"machine": machine()}
    steps = len(names) * ("training" in parts) + len(strategies) + len(idle_phones)
    steps += ("ingest" in parts) + ("memory" in parts)
    with long_work(steps) as tell:
        if "training" in parts:
            result["training"] = []
            for name in names:
                tell(f"training of {name}")
                result["training"].append(measure_training(name, data_dir, 10))
        if "ingest" in parts:
            result["ingest"] = []
            crowd = 40 if small else CROWD
            tell(f"{crowd:,} phones that answer at once")
            settings = {"problem": "digits/lite", "phones": crowd, "uplink": "vertex-small", "downlink": DOWNLINK}
            result["crowd"] = measure_server(
                settings, 5 * crowd, 1, durable=True, data_dir=data_dir, folder=None, within_s=1.0
            )
        for problem, spec in strategies:
            tell(f"ingest of {problem}, {spec}")
            phones = 20 if small else PHONES[problem]
            settings = {"problem": problem, "phones": phones, "uplink": spec, "downlink": DOWNLINK}
            updates = phones * (2 if small else 8)
            rows, echo = measure_beside(settings, updates, 1, data_dir=data_dir, folder=None)
            for row in rows:
                told = {"echo_per_s": echo["messages_per_s"], "echo_cpu_ms": echo["cpu_ms"]}
                result["ingest"].append({"problem": problem, "spec": spec, **row, **told})
            if not small:
                row = measure_server(settings, updates, 1, durable=True, data_dir=data_dir, folder=None, profile=True)
                result["ingest"][-2]["profile"] = row["profile"]
        if idle_phones:
            result["idle"] = []
        idle = {"problem": "digits/lite", "uplink": "rotate | eden(1)", "downlink": DOWNLINK}
        for phones in idle_phones:
            tell(f"a server with {phones:,} idle phones")
            result["idle"].append(measure_idle({**idle, "phones": phones}, data_dir=data_dir, processes=4))
        if "memory" in parts:
            tell("a swarm")
            result["swarm"] = measure_swarm(4 if small else 200, f"{data}/lite", data_dir, None, 120.0)
    return result


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Return the tables of docs/PERFORMANCE.md by their names."""
    about = result["machine"]
    machine = f"{about['cpu']}, {about['cores']} cores; {about['system']}; Python {about['python']}"
    made = {"machine": machine} if "idle" in result else {}
    if "training" in result:
        made["training machine"] = f"{machine}; compiled by {result['training'][0]['passes']}."
        made["training"] = _training_table(result["training"])
        made["training rules"] = _rules_table(result["training"])
    if "ingest" in result:
        made["ingest"] = _ingest_table(result["ingest"])
        made["profile"] = _profile_table(result["ingest"])
        made["crowd"] = _crowd_table(result["crowd"])
        made["ingest machine"] = machine
    if "idle" in result:
        made["memory"] = _memory_table(result["idle"], result["swarm"])
    return made


def _training_table(rows: list[dict[str, Any]]) -> str:
    return markdown(
        ["problem:", "parameters", "a plain loop of autograd µs", "vmap of 8 phones µs", "ours, torch µs",
         "with numba µs", "its passes alone µs", "autograd ÷ torch", "autograd ÷ numba", "torch ÷ passes alone",
         "numba ÷ passes alone", "own model ÷ plain loop"],
        [[row["problem"], f"{row['parameters']:,}", *(_us(row, name) for name in ("autograd", "vmap", "ours",
                                                                                 "compiled", "loop")),
          *(_ratio(row, *pair) for pair in (("autograd", "ours"), ("autograd", "compiled"), ("ours", "loop"),
                                            ("compiled", "loop"), ("own", "autograd")))]
         for row in rows],
    )  # fmt: skip


def _rules_table(rows: list[dict[str, Any]]) -> str:
    names = ("ours_momentum", "compiled_momentum", "ours_mask(1/16)", "ours_lowrank(1/8)", "ours_subspace(1000)",
             "evaluate_1000", "compiled_evaluate_1000")  # fmt: skip
    return markdown(
        ["problem:", "with momentum, torch µs", "with momentum, numba µs", "mask(1/16) µs", "lowrank(1/8) µs",
         "subspace(1000) µs", "evaluation of 1,000 images, torch µs", "numba µs", "torch ÷ numba"],
        [[row["problem"], *(_us(row, name) for name in names), _ratio(row, "evaluate_1000", "compiled_evaluate_1000")]
         for row in rows],
    )  # fmt: skip


def _us(row: dict[str, Any], name: str) -> str:
    return f"{row[f'{name}_us']:.0f}" if f"{name}_us" in row else "–"


def _ratio(row: dict[str, Any], over: str, under: str) -> str:
    names = (f"{over}_us", f"{under}_us")
    return f"{row[names[0]] / row[names[1]]:.2f}" if all(name in row for name in names) else "–"


def _ingest_table(rows: list[dict[str, Any]]) -> str:
    return markdown(
        ["problem:", "uplink:", "bytes", "phones", "durable:", "updates/s", "MB/s", "CPU ms an update",
         "echo messages/s", "echo ÷ ours", "CPU ours ÷ echo", "lag p50 ms", "lag p99 ms", "RSS at rest MB",
         "connected MB", "peak MB"],
        [[row["problem"], f"`{row['spec']}`", f"{row['payload_bytes']:,}", str(row["phones"]),
          "yes" if row["durable"] else "no", f"{row['updates_per_s']:.0f}", f"{row['payload_mb_per_s']:.1f}",
          f"{row['cpu_ms_per_update']:.2f}", f"{row['echo_per_s']:.0f}",
          f"{row['echo_per_s'] / row['updates_per_s']:.1f}",
          f"{row['cpu_ms_per_update'] / row['echo_cpu_ms']:.1f}",
          f"{row['lag_p50_ms']:.1f}", f"{row['lag_p99_ms']:.1f}",
          *(f"{row[name] / 1e6:.0f}" for name in ("rss_at_rest", "rss_connected", "rss_peak"))]
         for row in rows],
    )  # fmt: skip


def _crowd_table(row: dict[str, Any]) -> str:
    return markdown(
        ["phones", "updates in all", "the last one is answered after s", "from update to answer, median ms",
         "at most ms", "CPU s of the server a round"],
        [[f"{row['phones']:,}", f"{row['updates']:,}", f"{row['taken_s']:.2f}", f"{1e3 * row['wait_p50_s']:.0f}",
          f"{1e3 * row['wait_most_s']:.0f}", f"{row['cpu_ms_per_update'] * row['phones'] / 1e3:.2f}"]],
    )  # fmt: skip


def _profile_table(rows: list[dict[str, Any]]) -> str:
    profiled = [row for row in rows if row.get("profile")]
    parts = sorted({part for row in profiled for part in row["profile"]})
    return markdown(
        ["part:", *(f"{row['problem']} `{row['spec']}`" for row in profiled)],
        [[part, *(_share(row, part) for row in profiled)] for part in parts],
    )


def _share(row: dict[str, Any], part: str) -> str:
    share = row["profile"].get(part, 0.0)
    return f"{share:.0%} ({1e3 * share * row['cpu_ms_per_update']:.0f} µs)"


def _memory_table(idle: list[dict[str, Any]], swarm: dict[str, Any]) -> str:
    return markdown(
        ["what:", "phones", "figure"],
        [
            *(
                row
                for size in idle
                for row in (
                    [
                        "server, for each connected idle phone",
                        f"{size['phones']:,}",
                        f"{size['bytes_per_phone'] / 1024:.1f} KiB",
                    ],
                    ["server, CPU to admit a phone", f"{size['phones']:,}", f"{size['cpu_ms_per_join']:.2f} ms"],
                )
            ),
            ["swarm, until all could train", f"{swarm['phones']:,}", f"{swarm['ready_s']:.1f} s"],
            ["swarm, all its processes", f"{swarm['phones']:,}", f"{swarm['bytes'] / 1e6:.0f} MB"],
            ["swarm, for each phone", f"{swarm['phones']:,}", f"{swarm['bytes_per_phone'] / 1e6:.2f} MB"],
        ],
    )


@click.command()
@click.option("--data-dir", type=click.Path(), help="Folder with MNIST.  [default: FL_DATA_DIR, else a cache]")
@click.option("--small", is_flag=True, help="A size for tests: the figures mean nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--part", "parts", multiple=True, type=click.Choice(PARTS), help="Measure this only.  [default: all]")
@click.option("--from", "kept", multiple=True, type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="Take figures from this JSON in place of measuring.")  # fmt: skip
@click.option("--write", "document", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Fill tables.")
def performance(
    data_dir: str | None,
    small: bool,
    as_json: bool,
    parts: tuple[str, ...],
    kept: tuple[Path, ...],
    document: Path | None,
) -> None:
    """Measure training, ingest and a swarm: four minutes on a machine that does nothing else."""
    from featherfed.errors import ConfigError, FeatherfedError

    try:
        result = kept_or_measured(kept, lambda: _collect(data_dir, parts or PARTS, small=small))
        made = tables(result)
        if document is not None:
            fill(document, made)
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    except FeatherfedError as error:
        raise click.ClickException(str(error)) from error
    click.echo(json.dumps(result, indent=1) if as_json else "\n\n".join(made.values()))
