"""The address that a phone opens to take part, as text and as a QR code.

Where tokens are in use the address has one, behind the `#`: a browser sends that part to nobody. It is for all phones
whose names begin as the token's does, and each page makes up the rest of its own name.
"""

import io
import socket
from dataclasses import dataclass
from urllib.parse import urlencode

from featherfed.errors import ConfigError
from featherfed.server.door.entrance import Entrance, EntranceOptions
from featherfed.wire.address import is_loopback

ANY = ("0.0.0.0", "::")


@dataclass(frozen=True, slots=True)
class Invitation:
    """`url` is for people's eyes and terminals only, since it may have a token in it."""

    url: str
    far: bool
    """Whether other machines can open it."""
    cannot: str | None = None
    """Why browsers cannot take part in this run, which the page says then."""

    @property
    def line(self) -> str:
        """The line that says where the page is."""
        if self.cannot is not None:
            return f"browsers cannot take part, and {self.url} says so: {self.cannot}"
        return f"{'phones' if self.far else 'browsers of this machine'} join by opening {self.url}"

    def qr(self) -> str:
        """Return the address as a QR code for a terminal, two rows a line; nothing where no telephone could use it."""
        if self.cannot is not None or not self.far:
            return ""
        import segno

        text = io.StringIO()
        segno.make_qr(self.url, error="l").terminal(text, border=2, compact=True)
        return text.getvalue().rstrip("\n")


def invite(options: EntranceOptions, entrance: Entrance) -> Invitation:
    """Return where the phones of this entrance begin; raises `ConfigError` where they could not come in."""
    fragment = ""
    if entrance.tokens is not None:
        if options.phone_token is None:
            raise ConfigError(
                "--phone-page lets nobody in without a token here: fl-server token add 'browser-*' makes one for all"
                " browsers; give it by FL_PHONE_TOKEN or --phone-token"
            )
        token = entrance.tokens.find(f"Bearer {options.phone_token}")
        if token is None:
            raise ConfigError("--phone-token opens nothing here: fl-server token list shows whose tokens do")
        fragment = "#" + urlencode({"token": options.phone_token, "name": token.name})
    host, port = options.host, entrance.socket.getsockname()[1]
    if host in ANY:
        host = _own_address(host)
    shown = f"[{host}]" if ":" in host else host
    url = f"http{'s' if entrance.tls else ''}://{shown}:{port}/{fragment}"
    return Invitation(url, far=not is_loopback(options.host))


def hosts(options: EntranceOptions, entrance: Entrance) -> frozenset[str] | None:
    """Return the names under which the page may be asked for: this machine's own where no token is needed."""
    if entrance.tokens is not None or not is_loopback(options.host):
        return None
    return frozenset({options.host.lower(), f"[{options.host}]".lower(), "localhost", "127.0.0.1", "[::1]"})


def _own_address(host: str) -> str:
    """Return by which address this machine is seen from elsewhere: nothing is sent to find out."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    far = "2001:db8::1" if family == socket.AF_INET6 else "192.0.2.1"
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((far, 9))
        except OSError:
            return socket.gethostname()
        return str(probe.getsockname()[0])
