"""The flags of `fl-server serve` that say where it listens and who may come in. They are no part of a run."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

HOST = "127.0.0.1"
PORT = 8765
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
OPTIONS = (
    click.option("--host", default=HOST, show_default=True, help="Address to listen on."),
    click.option("--port", default=PORT, show_default=True, type=click.IntRange(0, 65535), help="Port; 0 picks one."),
    click.option("--tls-cert", type=FILE, help="Certificate chain, PEM; phones then come by wss://."),
    click.option("--tls-key", type=FILE, help="Its private key, PEM."),
    click.option("--tokens", type=click.Path(dir_okay=False, path_type=Path),
                 help="Tokens of the phones that may come in.  [default: RUNS/tokens.json, if it is there]"),
    click.option("--insecure", is_flag=True, help="Serve without TLS beyond this machine."),
    click.option("--max-connections", type=click.IntRange(1),
                 help="Connections in all.  [default: twice --phones and --max-handshakes]"),
    click.option("--max-per-address", type=click.IntRange(1),
                 help="Connections of one address.  [default: 64, without limit on loopback]"),
    click.option("--max-handshakes", type=click.IntRange(1), help="Connections not admitted yet.  [default: 64]"),
)  # fmt: skip

NAMES = (
    "host", "port", "tls_cert", "tls_key", "tokens", "insecure", "max_connections", "max_per_address", "max_handshakes",
)  # fmt: skip


def phone_page_flags(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the flags of the page that makes phones of browsers to a command that has `entrance_flags` below."""

    @functools.wraps(command)
    def collected(*, phone_page: bool, phone_token: str | None, entrance: dict[str, Any], **settings: Any) -> Any:
        return command(entrance={**entrance, "phone_page": phone_page, "phone_token": phone_token}, **settings)

    for option in (
        click.option("--phone-token", envvar="FL_PHONE_TOKEN", metavar="TEXT",
                     help="Token in the address of --phone-page, for all browsers.  [env: FL_PHONE_TOKEN]"),
        click.option("--phone-page", is_flag=True,
                     help="Serve a page that makes a phone of a browser, and print its address."),
    ):  # fmt: skip
        collected = option(collected)
    return collected


def entrance_flags(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the flags; the command gets them together, as `entrance`."""

    @functools.wraps(command)
    def collected(**settings: Any) -> Any:
        entrance = {name: settings.pop(name) for name in NAMES}
        return command(entrance=entrance, **settings)

    wrapped: Callable[..., Any] = collected
    for option in reversed(OPTIONS):
        wrapped = option(wrapped)
    return wrapped
