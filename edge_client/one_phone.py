"""One phone process: from the command line's options to the end of the run."""

import asyncio
import hashlib
import math
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from featherfed.bandwidth_sim.profile import Profile
from featherfed.bandwidth_sim.relay import LinkedDialer
from featherfed.commandline.signals import loading
from featherfed.edge_client.dialing import Dialer, DirectDialer, check_address, check_secrecy, trust
from featherfed.edge_client.learner import Learner, NoiseLearner, import_torch
from featherfed.edge_client.leaving import LeavingLearner
from featherfed.edge_client.local_problem import LocalProblem, problem_named_by
from featherfed.edge_client.phone import Phone, Rest, until_then
from featherfed.edge_client.phone_context import PhoneSettings
from featherfed.edge_client.phone_state import PhoneState, make_folder
from featherfed.edge_client.training_work import Trains, in_a_thread
from featherfed.errors import ConfigError
from featherfed.holding import held
from featherfed.secure.circles import DEFAULT_LEAST_CIRCLE
from featherfed.training_settings import LARGEST
from featherfed.user_modules import import_plugins
from featherfed.wire.messages import Welcome


@dataclass(frozen=True, slots=True, kw_only=True)
class PhoneOptions:
    """What `fl-edge run` was told. `profile` None is no emulated link; `compute` is torch's device.

    `problem` names this phone's own code; None plays what the server names, where that is installed here.

    `others` are more addresses of the same run, for a phone that does not know which gateway has its shard, or where.
    """

    server: str
    others: tuple[str, ...] = ()
    name: str | None = None
    problem: str | None = None
    plugins: tuple[str, ...] = ()
    shard: tuple[int, int] | None = None
    data_dir: str | None = None
    state_dir: str | None = None
    compute: str = "cpu"
    step_s: float = 0.0
    train: bool = True
    token: str | None = None
    insecure: bool = False
    ca: str | None = None
    patience_s: float = 600.0
    profile: Profile | None = None
    least_circle: int = DEFAULT_LEAST_CIRCLE
    only_masked: bool = False
    least_noise: float = 0.0
    dropout: float = 0.0
    away_s: float = 60.0

    def check(self) -> None:
        """Raise `ConfigError` for an address that cannot be one, or a name that does not fit the protocol.

        Plugins are imported, for what they register; what is wrong with one is a `ConfigError` too.
        """
        import_plugins(self.plugins)
        for server in (self.server, *self.others):
            self._check_address(server)
        if len({urlsplit(server).scheme for server in (self.server, *self.others)}) > 1:
            raise ConfigError("some --server addresses are ws:// and some wss://; the gateways of a run are alike")
        if self.name is not None and not (0 < len(self.name) <= 64 and self.name.isprintable()):
            raise ConfigError(f"--name {self.name!r} is not 1 to 64 printable characters")
        if self.token is not None and not (self.token.isascii() and self.token.isprintable()):
            raise ConfigError("--token is not printable ASCII; it is what fl-server token add printed")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"--dropout {self.dropout:g} is not a share from 0 to below 1")
        if not 0 <= self.least_noise <= LARGEST:
            raise ConfigError(f"--least-noise {self.least_noise:g} is not a number from 0 to {LARGEST:g}")
        if self.ca and urlsplit(self.server).scheme != "wss":
            raise ConfigError(f"--ca is for wss:// addresses, and --server is {self.server}")

    def _check_address(self, server: str) -> None:
        url = check_address(server, "--server")
        check_secrecy(url, self.token, "--token", insecure=self.insecure)


LinkMaker = Callable[[Profile, int], AbstractAsyncContextManager[Dialer]]
"""Makes a phone's way out from its link's profile and seed."""


LocalMaker = Callable[[str, str], LocalProblem]
"""Makes a problem of its name, for a device of torch."""


async def play_phone(
    options: PhoneOptions,
    say: Callable[[str], None],
    *,
    phone_state: PhoneState | None = None,
    linked: LinkMaker = LinkedDialer,
    make_local: LocalMaker = LocalProblem,
    rest: Rest = until_then,
    trains: Trains = in_a_thread,
) -> str:
    """Play one phone on the running event loop; return the server's reason for the end.

    `phone_state`, `linked` and `make_local` stand in where many phones share one process or there are no real sockets,
    `rest` where there is a better way than to wait to know when the server needs this phone again, and `trains` where
    others than a thread train.
    """
    # A process of a swarm is another one than that which checked its options.
    import_plugins(options.plugins)
    if phone_state is not None or options.state_dir is None:
        return await _play(options, say, phone_state or PhoneState(None), linked, make_local, rest, trains)
    folder = Path(options.state_dir)
    make_folder(folder)
    way_out = "give each phone a --state-dir of its own"
    with held(folder, "used", way_out, say=say):
        return await _play(options, say, PhoneState(folder), linked, make_local, rest, trains)


async def _play(
    options: PhoneOptions,
    say: Callable[[str], None],
    phone_state: PhoneState,
    linked: LinkMaker,
    make_local: LocalMaker,
    rest: Rest,
    trains: Trains,
) -> str:
    name = phone_state.name_phone(options.name)
    own: LocalProblem | None = None
    if options.train:
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, import_torch, options.compute)
        if options.problem is not None:
            # What is wrong with it is said before the server gives this phone a shard.
            own = await loop.run_in_executor(None, make_local, options.problem, options.compute)
            await loop.run_in_executor(None, own.prepare, options.data_dir)

    def learner(welcome: Welcome) -> Learner:
        made: Learner
        if options.train:
            local = own
            if local is None:
                local = make_local(problem_named_by(welcome), options.compute)
                local.prepare(options.data_dir)
            made = local.learner(welcome, options.data_dir)
        else:
            made = NoiseLearner(welcome)
        if options.dropout:
            return LeavingLearner(made, welcome, dropout=options.dropout, away_s=options.away_s)
        return made

    known = own.fingerprint if own else None
    settings = PhoneSettings(
        server=options.server,
        others=options.others,
        shard=options.shard,
        token=options.token,
        tls=trust(options.server, options.ca),
        step_s=options.step_s,
        patience_s=options.patience_s,
        link=link_label(options.profile),
        link_bytes_per_s=link_rate(options.profile),
        least_circle=options.least_circle,
        only_masked=options.only_masked,
        least_noise=options.least_noise,
    )
    if options.profile is None:
        phone = Phone(
            settings,
            name=name,
            phone_state=phone_state,
            dialer=DirectDialer(),
            make_learner=learner,
            say=say,
            known=known,
            rest=rest,
            trains=trains,
        )
        return await phone.run()
    # The link's randomness is the phone's own, and the same again for the same name.
    seed = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest(), "little")
    async with linked(options.profile, seed) as dialer:
        phone = Phone(
            settings,
            name=name,
            phone_state=phone_state,
            dialer=dialer,
            make_learner=learner,
            say=say,
            known=known,
            rest=rest,
            trains=trains,
        )
        return await phone.run()


def link_label(profile: Profile | None) -> str:
    """Return what the phone calls its link: up to 32 printable characters of the profile's name."""
    return "".join(letter for letter in profile.name if letter.isprintable())[:32] if profile else ""


def link_rate(profile: Profile | None) -> int:
    """Return what the link can carry up in bytes a second, headers left out; 0 where nothing limits it."""
    rate = profile.up.goodput_bytes_per_s if profile else math.inf
    return int(rate) if math.isfinite(rate) else 0


def play(options: PhoneOptions, say: Callable[[str], None]) -> str:
    """Play one phone in this process."""
    if options.train:
        # Here and not on the loop, whose end would wait for the thread that imports.
        with loading():
            import_torch(options.compute)
    return asyncio.run(play_phone(options, say))
