"""One phone: joins, trains off the event loop, uploads, comes back after every lost connection, ends when told to."""

import asyncio
from collections.abc import Awaitable, Callable

from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from featherfed.edge_client.addresses import Addresses
from featherfed.edge_client.backoff import Backoff
from featherfed.edge_client.connection import PhoneConnection, answered, open_connection
from featherfed.edge_client.dialing import Dialer
from featherfed.edge_client.download import SpoiltDownloadError
from featherfed.edge_client.learner import Learner
from featherfed.edge_client.leaving import PhoneLeftError
from featherfed.edge_client.phone_context import KnownModel, PhoneContext, PhoneSettings
from featherfed.edge_client.phone_state import PhoneState
from featherfed.edge_client.training_runner import TrainingRunner
from featherfed.edge_client.training_work import Trains, in_a_thread
from featherfed.edge_client.visit import NoWelcomeError, OtherWeightsError, Visit
from featherfed.errors import DivergedError, LocalError, ProtocolError, RemoteError
from featherfed.fingerprint import Fingerprint
from featherfed.wire.closing import LEAST_REST_S, Close, read_rest, readable
from featherfed.wire.messages import Welcome

LEAST_WAIT_S = 0.001
"""Between two attempts to connect: of a last wait that is too short for the clock to move, none would be the last."""
FIRST_CONTACT_S = 10.0
"""How long to look for a server that was never seen: it may just be starting."""


Rest = Callable[[int, float], Awaitable[None]]
"""Returns when a phone should come back that is asked next in a round, which may open in so many seconds."""


async def until_then(round_number: int, seconds: float) -> None:
    """Stay away for so many seconds, and for a moment where there are none: a faulty server would be asked at once."""
    await asyncio.sleep(max(LEAST_REST_S, seconds))


class RunPausedError(LocalError):
    """The server has paused the run; `reason` is its own, as it closed the connection with it."""

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def __str__(self) -> str:
        return f"the run pauses: {self.reason}; start this phone again when the run is resumed"


class RestError(LocalError):
    """The server needs this phone not before `round_number`, which may open in `seconds`."""

    def __init__(self, round_number: int, seconds: float) -> None:
        self.round_number, self.seconds = round_number, seconds

    def __str__(self) -> str:
        return f"not needed before round {self.round_number}; back in {self.seconds:.0f} s"


class NoShardHereError(LocalError):
    """The server has no shard for this phone; another address of the run may have one."""


class Phone:
    """Runs one phone until the server ends it."""

    def __init__(
        self,
        settings: PhoneSettings,
        *,
        name: str,
        phone_state: PhoneState,
        dialer: Dialer,
        make_learner: Callable[[Welcome], Learner],
        say: Callable[[str], None],
        known: Fingerprint | None = None,
        rest: Rest = until_then,
        trains: Trains = in_a_thread,
    ) -> None:
        """`known` is the model of this phone's own problem, of which the server says nothing if it is its own.

        `make_learner` is given a Welcome with all of the model's tensors.
        """
        self._phone = PhoneContext(
            settings=settings, name=name, phone_state=phone_state, dialer=dialer, model=KnownModel(known), say=say,
            runner=TrainingRunner(phone_state, make_learner, step_s=settings.step_s, say=say, trains=trains),
            addresses=Addresses((settings.server, *settings.others)),
        )  # fmt: skip
        self._rest = rest
        self._waits = False
        """Whether the server has a shard for this phone only later."""

    async def run(self) -> str:
        """Return the server's reason for the end; raises `LocalError` where there is no way on."""
        try:
            return await self._visits()
        finally:
            await self._phone.runner.stop()

    async def _visits(self) -> str:
        loop = asyncio.get_running_loop()
        backoff = Backoff(self._phone.name)
        # A phone that knows a run has seen its server, perhaps in an earlier life.
        seen, lost_at_s, rested = bool(self._phone.phone_state.run), loop.time(), False
        while True:
            stay = no_shard = False
            try:
                connection = await self._connect()
            except InvalidStatus as error:
                status = error.response.status_code
                if status in {401, 403}:
                    raise LocalError(
                        f"{self._phone.addresses.current} refused this phone ({status}): is"
                        f" {self._phone.settings.token_flag} right?"
                    ) from error
                trouble = answered(error)
            except (OSError, WebSocketException) as error:
                # Any of the library's: a connection may also be lost between its request and the server's answer.
                trouble = readable(str(error)) or type(error).__name__
            else:
                visit = Visit(connection, self._phone)
                try:
                    return await visit.run()
                except ConnectionClosed as error:
                    if visit.welcomed:
                        seen, stay, rested = True, True, False
                        backoff.reset()
                    if error.rcvd is not None and error.rcvd.code == Close.DONE and error.rcvd.reason:
                        # Said to phones that come when the run has just ended, in place of Welcome or Finish.
                        return readable(error.rcvd.reason)
                    if fault := connection.fault(error):
                        raise LocalError(f"the server broke the protocol: {readable(str(fault))}") from error
                    try:
                        trouble, lost_at_s = self._closed(error), loop.time()
                        seen |= self._waits
                    except NoShardHereError as nothing:
                        trouble, no_shard = str(nothing), True
                    except RestError as rest:
                        self._phone.say(str(rest))
                        rested = True
                        await self._rest(rest.round_number, rest.seconds)
                        lost_at_s = loop.time()
                        continue
                except PhoneLeftError as leave:
                    self._phone.say(str(leave))
                    await asyncio.sleep(leave.away_s)
                    seen, lost_at_s = True, loop.time()
                    continue
                except NoWelcomeError as error:
                    trouble = str(error)
                except (SpoiltDownloadError, OtherWeightsError) as error:
                    self._phone.say(f"{error}; it is asked for anew")
                    trouble, seen, stay, lost_at_s = str(error), True, True, loop.time()
                except DivergedError as error:
                    # This round goes on without this phone; a later one may ask it again.
                    self._phone.say(str(error))
                    seen, lost_at_s = True, loop.time()
                    backoff.reset()
                    await asyncio.sleep(backoff.next_s())
                    continue
                except RemoteError as error:
                    raise LocalError(f"the server broke the protocol: {readable(str(error))}") from error
            around = stay or self._phone.addresses.failed(no_shard=no_shard)
            if self._phone.addresses.none_has_a_shard:
                raise LocalError(trouble)
            patience_s = (
                self._phone.settings.patience_s if seen else min(FIRST_CONTACT_S, self._phone.settings.patience_s)
            )
            away_s = loop.time() - lost_at_s
            if away_s >= patience_s:
                nobody = f"no server at {self._phone.addresses} for {away_s:.0f} s ({trouble})"
                if rested and self._phone.phone_state.pending is None:
                    # It owes the run nothing: one that reaches its target ends without its resting phones.
                    return f"{nobody} since this phone's rest, so its run is taken to be over"
                raise LocalError(
                    f"{nobody}; start it with fl-server serve, or name another with {self._phone.settings.server_flag}"
                )
            if around:
                await asyncio.sleep(max(LEAST_WAIT_S, min(backoff.next_s(), patience_s - away_s)))

    async def _connect(self) -> PhoneConnection:
        settings = self._phone.settings
        return await open_connection(
            self._phone.addresses.current, self._phone.dialer, tls=settings.tls, token=settings.token
        )

    def _closed(self, error: ConnectionClosed) -> str:
        code = error.rcvd.code if error.rcvd else None
        sentence = readable(error.rcvd.reason) if error.rcvd else "the connection was lost"
        known = next((close for close in Close if close == code), None)
        if known is Close.NO_SHARD:
            raise NoShardHereError(f"the server closed the connection ({code}): {sentence}")
        if known is not None and known.final:
            raise LocalError(f"the server closed the connection ({code}): {sentence}")
        if known is Close.RESTS and error.rcvd:
            try:
                raise RestError(*read_rest(error.rcvd.reason))
            except ProtocolError as fault:
                raise LocalError(f"the server broke the protocol: {fault}") from error
        if known is Close.PAUSED:
            raise RunPausedError(sentence)
        if known is Close.LATER:
            self._wait_for_a_shard(sentence)
        if known is Close.PAYLOAD:
            # The same bytes would be refused again.
            self._phone.phone_state.drop_update()
        return sentence or f"closed with code {code}"

    def _wait_for_a_shard(self, sentence: str) -> None:
        if not self._waits:
            self._phone.say(f"{sentence}; waiting (with --name or --state-dir a phone gets its own shard back at once)")
        self._waits = True
