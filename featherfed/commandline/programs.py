"""Where the console scripts begin: stopped without a word while their modules load."""

from importlib import import_module

from featherfed.commandline.signals import end_at_once


def _run(module: str) -> None:
    end_at_once()
    import_module(module).main()


def server() -> None:
    """Run `fl-server`."""
    _run("featherfed.server.cli")


def edge() -> None:
    """Run `fl-edge`."""
    _run("featherfed.edge_client.cli")


def link() -> None:
    """Run `fl-link`."""
    _run("featherfed.bandwidth_sim.cli")


def bench() -> None:
    """Run `fl-bench`."""
    _run("featherfed.fl_bench.cli")
