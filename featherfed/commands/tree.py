"""`fl-server tree`: a run whose phones come to gateways, all started by one command."""

from pathlib import Path
from typing import Any

import click

from featherfed.commandline.signals import loading
from featherfed.commandline.streams import keep_on
from featherfed.server.entrance_flags import entrance_flags
from featherfed.server.options import run_flags
from featherfed.server.serve_flags import check_resume, ended, serve_flags
from featherfed.server.watching import Watching, watch_flags


@click.command()
@entrance_flags
@serve_flags
@click.option(
    "--gateway-port",
    default=8766,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Port of gateway 0; the others have the next ones, on whatever machine they are. 0 picks free ones.",
)
@click.option(
    "--ray",
    metavar="auto|ADDRESS",
    help="Start the gateways as actors of this Ray cluster.  [default: as processes of this machine]",
)
@click.option(
    "--root-host",
    metavar="HOST",
    help="Name or address by which gateways reach this machine.  [default: that of --host, or this node's]",
)
@click.option(
    "--gateway-ca",
    type=click.Path(exists=True, dir_okay=False),
    help="Authority of --tls-cert, for the gateways.  [default: the system's]",
)
@watch_flags
@run_flags
def tree(
    entrance: dict[str, Any],
    watching: Watching,
    gateway_port: int,
    ray: str | None,
    root_host: str | None,
    gateway_ca: str | None,
    runs: Path,
    name: str | None,
    resume: Path | None,
    data_dir: str | None,
    store: str | None,
    durable: bool,
    **settings: Any,
) -> None:
    """Run the rounds by a root and --gateways N, which are started again where they die; exit 0 when they are done."""
    given = {key: value for key, value in settings.items() if value is not None}
    check_resume(resume, given, name=name, store=store)
    if resume is None and not given.get("gateways"):
        raise click.UsageError("--gateways N says how many gateways there are; without any it is fl-server serve")
    keep_on()
    with loading():
        from featherfed.gateway.tree import Grove, serve_tree
        from featherfed.server.entrance import EntranceOptions

    def serve() -> str | None:
        return serve_tree(
            given, entrance=EntranceOptions(**entrance), runs=runs, name=name, resume=resume, data_dir=data_dir,
            store=store, durable=durable, watching=watching,
            grove=Grove(port=gateway_port, ray=ray, root_host=root_host, ca=gateway_ca),
        )  # fmt: skip

    ended(serve)
