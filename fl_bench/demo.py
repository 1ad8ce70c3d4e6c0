"""`fl-bench demo`: one server, ten phones on 256 kbit/s, no download, a report at the end."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from featherfed.commandline.signals import loading
from featherfed.commandline.streams import keep_on

SETTINGS = {
    "--problem": "digits/lite",
    "--epochs": "5",
    "--lr": "0.05",
    "--uplink": "rotate | eden(1)",
    "--downlink": "rotate | eden(4)",
}


@click.command()
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the run.  [default: a new temporary one]")
@click.option("--bandwidth", default="256kbps", show_default=True, help="Of each phone's link, up and down.")
@click.option("--phones", default=10, show_default=True, type=click.IntRange(1), help="Each a process of its own.")
@click.option("--rounds", default=8, show_default=True, type=click.IntRange(1), help="All phones are in each.")
@click.option("--secure", is_flag=True, help="Sum updates under masks, at 4 bits a weight (docs/PRIVACY.md).")
def demo(out: Path | None, bandwidth: str, phones: int, rounds: int, secure: bool) -> None:
    """One server, ten phones, bundled data, a report: under a minute, no download."""
    keep_on()
    with loading():
        from featherfed.errors import FeatherfedError

    try:
        page = run_demo(out, bandwidth, click.echo, phones=phones, rounds=rounds, secure=secure)
    except FeatherfedError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"the report lies in {page}")


def run_demo(
    out: Path | None, bandwidth: str, tell: Callable[[str], None], *, phones: int, rounds: int, secure: bool = False
) -> Path:
    """Run the demo in `out` (or a new folder under the temporary directory), return the report's page."""
    from rich.console import Console

    from featherfed.bandwidth_sim.errors import LinkConfigError
    from featherfed.bandwidth_sim.profile import profile_from_flags
    from featherfed.errors import ConfigError
    from featherfed.fl_bench.cells import stored_report
    from featherfed.fl_bench.page import run_page
    from featherfed.fl_bench.processes import Processes
    from featherfed.server.config import SECURE_UPLINK
    from featherfed.server.storage.report import table
    from featherfed.server.storage.run_folder import existing

    try:
        profile_from_flags(bandwidth=bandwidth)
    except LinkConfigError as error:
        raise ConfigError(f"--bandwidth: {error}") from error

    def show(event: dict[str, Any]) -> None:
        if "message" in event:
            tell(event["message"])

    runs = out or Path(tempfile.mkdtemp(prefix="featherfed-demo-"))
    tell(f"one server and {phones} phones on {bandwidth}, each a process of its own")
    strategy = SETTINGS | ({"--uplink": SECURE_UPLINK} if secure else {})
    settings = {**strategy, "--phones": str(phones), "--cohort": str(phones), "--rounds": str(rounds)}
    flags = [part for pair in settings.items() for part in pair] + ["--secure"] * secure
    with Processes(runs / "logs") as processes:
        address = processes.start_server(["--runs", str(runs), "--name", "demo", *flags], show)
        for number in range(phones):
            flags = ["--server", address, "--name", f"phone-{number}", "--shard", f"{number}/{phones}"]
            flags += ["--problem", SETTINGS["--problem"], *["--secure"] * secure]
            processes.start_phone(f"phone-{number}", [*flags, "--bandwidth", bandwidth])
        processes.wait_for_server(timeout_s=300)
    folder, config = existing(runs / "demo")
    page = folder.path / "report.html"
    report = stored_report(folder.path)
    console = Console()
    if not console.is_terminal:
        console.width = 120
    console.print(table(report, console.width))
    masks = " --secure" * secure
    each = f"fl-edge run --problem {SETTINGS['--problem']} --shard $shard/{phones} --bandwidth {bandwidth}{masks}"
    commands = [
        f"fl-bench demo --bandwidth {bandwidth} --phones {phones} --rounds {rounds}{masks}",
        "# or its parts:",
        config.command(),
        f"for shard in $(seq 0 {phones - 1}); do {each} & done; wait",
    ]
    page.write_text(run_page(report.content, commands, config.to_toml()), encoding="utf-8")
    tell(f"its page opens again with: fl-server dashboard {folder.path}")
    return page
