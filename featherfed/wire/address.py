"""What can be a host, and which are this machine itself: nobody else reads what is sent there."""

import ipaddress


def is_host(text: str) -> bool:
    """Return whether a name or address can be looked up at all: its labels have 1 to 63 bytes, and no blanks.

    >>> [is_host(text) for text in ("bücher.example", "::1", "localhost.", "a..b", "a" * 64, "a b", "")]
    [True, True, True, False, False, False, False]
    """
    try:
        return bool(text.encode("idna")) and text.isprintable() and " " not in text
    except UnicodeError:
        return False


def is_loopback(host: str) -> bool:
    """Return whether a host, as people type it, never leaves this machine; names other than localhost may.

    >>> [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "phones.example")]
    [True, True, True, False, False]
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
