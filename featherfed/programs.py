"""Where the console scripts begin: stopped without a word while their modules load."""

from featherfed.commandline.signals import end_at_once


def server() -> None:
    """Run `fl-server`."""
    end_at_once()
    from featherfed.commands.server import main

    main()


def edge() -> None:
    """Run `fl-edge`."""
    end_at_once()
    from featherfed.edge_client.cli import main

    main()


def link() -> None:
    """Run `fl-link`."""
    end_at_once()
    from featherfed.bandwidth_sim.cli import main

    main()


def bench() -> None:
    """Run `fl-bench`."""
    end_at_once()
    from featherfed.fl_bench.cli import main

    main()
