"""`fl-server`: serve a run, report on one, list the models. Nothing heavy is imported before a command runs."""

import json
import os
import re
from pathlib import Path
from typing import Any

import click

from featherfed.commandline.program import Program
from featherfed.commandline.signals import loading
from featherfed.commandline.streams import keep_on
from featherfed.commands.tree import tree
from featherfed.server.door.entrance_flags import entrance_flags, phone_page_flags
from featherfed.server.door.token_commands import token
from featherfed.server.options import run_flags
from featherfed.server.serve_flags import ended, planned, serve_flags, split
from featherfed.server.watching import dashboard_flags, watch_flags

os.environ.setdefault("OMP_NUM_THREADS", "1")
# Every Python that this one starts would look for modules in the current folder first: a file server.py there, or an
# empty json.py, would be imported in place of ours or the library's.
os.environ.setdefault("PYTHONSAFEPATH", "1")

_PLACE = re.compile(r"([0-9]{1,9})/([0-9]{1,9})")


class Place(click.ParamType[tuple[int, int]]):
    """`1/4`: the second of four gateways."""

    name = "INDEX/OF"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """Return (index, of)."""
        match = _PLACE.fullmatch(str(value))
        if match is None or int(match[1]) >= int(match[2]):
            self.fail(f"{str(value)[:40]!r} is not INDEX/OF with INDEX from 0 to OF - 1, like 1/4", param, ctx)
        return int(match[1]), int(match[2])


@click.group(cls=Program)
@click.version_option(package_name="featherfed")
def main() -> None:
    """Coordinate federated learning over WebSockets."""


@main.command()
@entrance_flags
@phone_page_flags
@serve_flags
@click.option("--gateway-of", "root", metavar="URL", help="Serve phones as a gateway of the root at ws://….")
@click.option("--gateway", "place", type=Place(), metavar="INDEX/OF", help="Which of the root's gateways, from 0.")
@click.option("--gateway-token", envvar="FL_TOKEN", help="Token that the root gave out.  [env: FL_TOKEN]")
@click.option("--gateway-ca", type=click.Path(exists=True, dir_okay=False), help="Authority of a root at wss://….")
@watch_flags
@run_flags
def serve(
    root: str | None,
    place: tuple[int, int] | None,
    gateway_token: str | None,
    gateway_ca: str | None,
    **flags: Any,
) -> None:
    """Run the rounds, and exit 0 when they are done."""
    settings, where = split(flags)
    if (root is None) != (place is None):
        raise click.UsageError("--gateway-of URL and --gateway INDEX/OF go together")
    if root is None and gateway_ca:
        raise click.UsageError("--gateway-ca is for --gateway-of; phones trust this server by their own --ca")
    if root is not None and where["entrance"]["phone_page"]:
        raise click.UsageError("--phone-page is for a server with a problem of its own; a gateway knows none")
    if root is not None and where["store"]:
        raise click.UsageError("--store is for the root; a gateway keeps what its phones send in its own folder")

    keep_on()

    def run() -> str | None:
        if root is not None and place is not None:
            with loading():
                from featherfed.gateway.serving import Root, serve_gateway

            plan = planned(settings, **where)
            way = Root(url=root, token=gateway_token, ca=gateway_ca, insecure=plan.entrance.insecure)
            serve_gateway(plan, way, place)
            return None
        with loading():
            from featherfed.server.serving import serve_and_print

        return serve_and_print(planned(settings, **where))

    ended(run)


main.add_command(tree)
main.add_command(token)


@main.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--csv", "as_csv", is_flag=True, help="Print rounds.csv.")
def report(run: Path, as_json: bool, as_csv: bool) -> None:
    """Print the bytes-per-round table of the run in the folder RUN."""
    with loading():
        from rich.console import Console

        from featherfed.errors import FeatherfedError
        from featherfed.server.storage.report import make_report, table
        from featherfed.server.storage.run_folder import existing
        from featherfed.server.storage.store import Store

    if as_json and as_csv:
        raise click.UsageError("--json and --csv are two formats; choose one")
    try:
        folder, config = existing(run)
        store = Store(folder.database)
        made = make_report(folder, config, store)
        store.close()
    except FeatherfedError as error:
        raise click.ClickException(str(error)) from error
    if as_json or as_csv:
        click.echo(made.to_json() if as_json else made.to_csv(), nl=as_json)
    else:
        console = Console()
        if not console.is_terminal:
            console.width = 160
        console.print(table(made, console.width))


@main.command()
@click.argument("names", nargs=-1, metavar="[PROBLEM]…")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def models(names: tuple[str, ...], as_json: bool) -> None:
    """Print the tensors that travel of the PROBLEMs, of all of ours without one: shapes, parameters, float32 bytes."""
    from featherfed.errors import ConfigError
    from featherfed.learning.described import described, ours, summary

    try:
        chosen = [described(name) for name in names or ours()]
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    if as_json:
        click.echo(json.dumps(chosen, indent=2))
    else:
        click.echo("\n\n".join(f"{each['problem']}\n{summary(each)}" for each in chosen))


@main.command()
@click.argument("runs", type=click.Path(path_type=Path), default="runs")
@dashboard_flags
def dashboard(runs: Path, dashboard: str, dashboard_token: str | None) -> None:
    """Show the page of the runs in the folder RUNS, or of the one run that it is, until Ctrl-C."""
    keep_on()
    with loading():
        from featherfed.errors import ConfigError, FeatherfedError
        from featherfed.server.dashboard.serving import serve_stored

    try:
        serve_stored(runs, dashboard, dashboard_token, click.echo)
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    except FeatherfedError as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
