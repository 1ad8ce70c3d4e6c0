"""A Ray cluster that is there already: what starts and stops using it."""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from featherfed.errors import ConfigError

KNOCK_S = 5.0


@contextmanager
def cluster(address: str) -> Iterator[Any]:
    """Give Ray, connected to the cluster at `address` (`auto`: the one that runs here), until the block is left.

    Raises `ConfigError` where there is no Ray or no cluster.
    """
    try:
        import ray
    except ImportError as error:
        raise ConfigError("--ray needs Ray: pip install 'featherfed[ray]'") from error
    _knock(address)
    environment = {name: os.environ[name] for name in ("PYTHONPATH", "FL_DATA_DIR") if name in os.environ}
    try:
        ray.init(
            address=address, log_to_driver=False, logging_level=logging.ERROR,
            runtime_env={"env_vars": {"OMP_NUM_THREADS": "1", **environment}},
        )  # fmt: skip
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ConfigError(f"no Ray cluster at {address!r}: {' '.join(str(error).split())[:200]}") from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Raise `ConfigError` where nobody listens: Ray would look for minutes."""
    host, colon, port = address.rpartition(":")
    if colon and len(port) < 6 and port.isdecimal() and "/" not in address:
        try:
            socket.create_connection((host.strip("[]"), int(port)), KNOCK_S).close()
        except (OSError, OverflowError, UnicodeError) as error:
            raise ConfigError(f"no Ray cluster at {address!r}: {error}") from error
