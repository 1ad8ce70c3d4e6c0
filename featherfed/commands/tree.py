"""`fl-server tree`: a run whose phones come to gateways, all started by one command."""

from typing import Any

import click

from featherfed.commandline.signals import loading
from featherfed.commandline.streams import keep_on
from featherfed.server.door.entrance_flags import entrance_flags
from featherfed.server.options import run_flags
from featherfed.server.serve_flags import ended, planned, serve_flags, split
from featherfed.server.watching import watch_flags


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
    gateway_port: int,
    ray: str | None,
    root_host: str | None,
    gateway_ca: str | None,
    **flags: Any,
) -> None:
    """Run the rounds by a root and --gateways N, which are started again where they die; exit 0 when they are done."""
    settings, where = split(flags)
    if where["resume"] is None and not settings.get("gateways"):
        raise click.UsageError("--gateways N says how many gateways there are; without any it is fl-server serve")
    keep_on()
    with loading():
        from featherfed.gateway.tree import GatewayHosting, serve_tree

    def serve() -> str | None:
        hosting = GatewayHosting(port=gateway_port, ray=ray, root_host=root_host, ca=gateway_ca)
        return serve_tree(planned(settings, **where), hosting)

    ended(serve)
