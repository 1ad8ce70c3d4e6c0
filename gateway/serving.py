"""`fl-server serve --gateway-of`: a phone upwards, a server downwards, on one event loop."""

import asyncio
import contextlib
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rich.console import Console

from edge_client.dialing import DirectDialer
from edge_client.learner import Learner
from edge_client.phone import Phone, PhoneSettings
from featherfed.errors import ConfigError, LocalError
from featherfed.wire.messages import Welcome
from gateway.aggregation import GatewayAggregator
from gateway.handoff import Handoff, News
from gateway.upstream import GatewayLearner, GatewayPocket
from server.config import RunConfig, config_from
from server.display import PlainDisplay
from server.entrance import Entrance, EntranceOptions
from server.round_machine import Rules, RunState
from server.run_folder import RunFolder, create, existing
from server.service import Service
from server.serving import check
from server.standing import Standing, resume, rules
from server.store import Store, put_value
from server.watcher import Watcher

DEADLINE_SHARE = 0.9
"""Of the root's deadline: what a gateway has must be there before the root stops waiting."""


def gateway_rules(config: RunConfig, index: int, of: int) -> Rules:
    """Return the machine's rules for one gateway's share of a run: shards in a row, as equal as can be."""
    first, end = index * config.phones // of, (index + 1) * config.phones // of
    phones = end - first
    # A round closes when all who were asked are done, or at its deadline, with whatever there is.
    return replace(rules(config), phones=phones, target=phones, min_updates=0, first=first, total=config.phones)


def serve_gateway(
    settings: dict[str, Any],
    *,
    root: str,
    place: tuple[int, int],
    token: str | None,
    entrance: EntranceOptions,
    runs: Path,
    name: str | None,
    resume: Path | None,
    durable: bool,
) -> None:
    """Serve one gateway's phones until the root's run is over; raises `LocalError` where there is no way on."""
    index, of = place
    url = urlsplit(root)
    if url.scheme not in ("ws", "wss") or not url.hostname:
        raise ConfigError(f"--gateway-of {root!r} is not an address like ws://127.0.0.1:8765")
    if resume is None:
        given = config_from(settings)
        check(given)
        if of > given.phones:
            raise ConfigError(f"--gateway {index}/{of} leaves gateways without phones; --phones {given.phones} is less")
        config = replace(given, gateways=0, deadline=DEADLINE_SHARE * given.deadline)
        folder = create(runs, name or f"gateway-{index}", config)
    else:
        folder, config = existing(resume)
    with Entrance(entrance, folder.path.absolute().parent, config.phones) as door:
        store = Store(folder.database, durable=durable)
        try:
            display = PlainDisplay(Console(), None)
            asyncio.run(serve(config, folder, store, door, display, root=root, place=place, token=token))
        finally:
            store.close()


async def serve(
    config: RunConfig,
    folder: RunFolder,
    store: Store,
    door: Entrance,
    watcher: Watcher,
    *,
    root: str,
    place: tuple[int, int],
    token: str | None = None,
) -> None:
    """Play both sides on the running event loop. Phones may come once the root has begun its first round."""
    loop = asyncio.get_running_loop()
    service: Service | None = None

    def heard(news: News) -> None:
        if service is not None:
            loop.call_soon_threadsafe(service.hurry, news.round_number)

    handoff = Handoff(heard)
    pocket = GatewayPocket(folder.path / "upstream")
    welcomes: list[Welcome] = []

    def make_learner(welcome: Welcome) -> Learner:
        welcomes.append(welcome)
        return GatewayLearner(welcome, config, handoff, pocket)

    name = pocket.name_phone(f"gateway-{place[0]}")
    phone = Phone(
        PhoneSettings(server=root, shard=place, token=token), name=name, pocket=pocket, dialer=DirectDialer(),
        make_learner=make_learner, say=lambda line: None,
    )  # fmt: skip
    upward = asyncio.create_task(phone.run())
    upward.add_done_callback(lambda _: handoff.finish())
    try:
        news = await loop.run_in_executor(None, handoff.first)
        if news is not None:
            aggregator = GatewayAggregator(config, handoff)
            standing = _standing(config, store, folder, aggregator, welcomes[0].run, place)
            aggregator.adopt(news)
            service = Service(config, folder, aggregator, store, standing, watcher)
            for number in (signal.SIGINT, signal.SIGTERM):
                with contextlib.suppress(NotImplementedError, ValueError, RuntimeError):
                    loop.add_signal_handler(number, service.stop)
            await service.run(door)
    finally:
        handoff.finish()
        if not upward.done():
            # After the root's Finish it takes its leave by itself.
            await asyncio.wait({upward}, timeout=1.0)
        upward.cancel()
        outcome = (await asyncio.gather(upward, return_exceptions=True))[0]
    if isinstance(outcome, Exception):
        raise outcome


def _standing(
    config: RunConfig, store: Store, folder: RunFolder, aggregator: GatewayAggregator, run: str, place: tuple[int, int]
) -> Standing:
    """Return where this gateway stands: new, or as its folder tells."""
    mine = gateway_rules(config, *place)
    values = store.values()
    if "run" not in values:
        # The root's id: a phone may move to another gateway with the model that it has.
        store.apply([put_value("run", run), put_value("parameters", str(aggregator.parameters))])
        return Standing(run, RunState(mine), 0.0, 0.0)
    if values["run"] != run:
        raise LocalError(f"{folder.path} is of run {values['run']}, the root's is {run}; choose another --name")
    standing = resume(config, store, folder, aggregator)
    return replace(standing, state=replace(standing.state, rules=mine))
