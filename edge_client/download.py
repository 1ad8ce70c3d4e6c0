"""A model on its way in: bytes in order, then the digest, then the difference added to what the phone holds."""

import contextlib
import itertools
from collections.abc import Iterator

from featherfed.codec.downlink import INITIAL, Downlink, Held, Step
from featherfed.codec.downlink_grammar import parse_downlink
from featherfed.codec.layout import Layout
from featherfed.codec.pipeline import Pipeline
from featherfed.edge_client.phone_state import PhoneState
from featherfed.errors import CodecError, ProtocolError, SpecError
from featherfed.wire.messages import NOTHING, ModelBegin


class SpoiltDownloadError(CodecError):
    """A model that was put together from kept bytes is not the one that was announced: it may come anew, whole."""


class Download:
    """One model that is being received; the session has checked that its chunks are in order."""

    def __init__(
        self, begin: ModelBegin, phone_state: PhoneState, layout: Layout, downlink: Downlink | None = None
    ) -> None:
        """Check what is announced before a byte is kept; raises `ProtocolError`.

        `downlink` is what the announced spec makes, where it has been built before.
        """
        self._downlink = buildable_downlink(begin.spec) if downlink is None else downlink
        self._step = Step(begin.base, begin.version, tuple(begin.lengths))
        try:
            self._downlink.check(self._step, layout)
        except CodecError as error:
            raise ProtocolError(str(error)) from error
        self._layout = layout
        _check_base(begin.base, phone_state, self._downlink)
        self._phone_state = phone_state
        self.begin = begin
        self.total_bytes = sum(begin.lengths)
        self._payload = b""
        phone_state.begin_download(begin.digest)
        if begin.offset > len(phone_state.download):
            raise ProtocolError(f"model from byte {begin.offset} on, this phone has {len(phone_state.download)}")
        self.extend(begin.offset, begin.data)

    def extend(self, offset: int, data: bytes) -> None:
        """Keep the next bytes."""
        self._phone_state.extend_download(offset, data)

    @property
    def complete(self) -> bool:
        """Whether all bytes are there."""
        return len(self._phone_state.download) == self.total_bytes

    def held(self, seed: int) -> Held:
        """Return what the phone holds now; raises `CodecError` where the bytes are not what was announced.

        Where some of them were kept from before, this phone's disk may have spoilt them: `SpoiltDownloadError`.
        """
        begin = self.begin
        payload = self._phone_state.downloaded(begin.digest)
        if payload is None:
            self._phone_state.begin_download(b"")
            fault = SpoiltDownloadError if begin.offset else CodecError
            raise fault(f"model of {self.total_bytes} bytes does not have the digest that was announced")
        self._payload = payload
        return self._phone_state.decoded(begin, lambda: self._decode(payload, seed))

    def keep(self, held: Held) -> None:
        """Have the phone keep what `held` returned."""
        assert held.weights is not None, "a download makes weights"
        last = self._payload[self.total_bytes - self.begin.lengths[-1] :]
        initial = held.initial if self._downlink.keeps_initial else None
        self._phone_state.hold(held.version, held.weights, initial, last)

    def _decode(self, payload: bytes, seed: int) -> Held:
        ends = list(itertools.accumulate(self.begin.lengths))
        parts = [payload[end - length : end] for end, length in zip(ends, self.begin.lengths, strict=True)]
        state = self._phone_state
        before = Held(state.held_version, state.weights, state.initial)
        return self._downlink.apply(self._step, parts, before, self._layout, seed)


def buildable(spec: str, direction: str) -> Pipeline:
    """Return the pipeline of the server's spec; raises `ProtocolError` where this phone cannot build it."""
    with _building(direction):
        return Pipeline.parse(spec, direction=direction)


def buildable_downlink(spec: str) -> Downlink:
    """Return the downlink of the server's spec; raises `ProtocolError` where this phone cannot build it."""
    with _building("downlink"):
        return parse_downlink(spec)


@contextlib.contextmanager
def _building(direction: str) -> Iterator[None]:
    try:
        yield
    except SpecError as error:
        raise ProtocolError(f"the {direction} is no codec of this phone: {error}") from error


def _check_base(base: int, phone_state: PhoneState, downlink: Downlink) -> None:
    """Raise `ProtocolError` for a difference to what the phone does not hold."""
    if base == INITIAL and downlink.keeps_initial and phone_state.initial is not None:
        return
    if base not in (NOTHING, phone_state.held_version):
        raise ProtocolError(f"difference to version {base}, this phone holds {phone_state.held_version}")
