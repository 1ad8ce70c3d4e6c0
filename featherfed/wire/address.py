"""Which hosts are this machine itself: nobody else reads what is sent there."""

import ipaddress


def is_loopback(host: str) -> bool:
    """Return whether a host, as people type it, never leaves this machine; names other than localhost may.

    >>> [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "phones.example")]
    [True, True, True, False, False]
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
