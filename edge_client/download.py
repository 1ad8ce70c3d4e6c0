"""A model on its way in: bytes in order, then the digest, then the difference added to what the phone holds."""

from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from featherfed.codec.layout import Layout
from featherfed.codec.pipeline import Pipeline
from featherfed.edge_client.phone_state import PhoneState
from featherfed.errors import CodecError, ProtocolError, SpecError
from featherfed.randomness import RoundKey
from featherfed.wire.messages import NOTHING, ModelBegin

F32 = npt.NDArray[np.float32]


class SpoiltDownloadError(CodecError):
    """A model that was put together from kept bytes is not the one that was announced: it may come anew, whole."""


class Download:
    """One model that is being received; the session has checked that its chunks are in order."""

    def __init__(self, begin: ModelBegin, phone_state: PhoneState, layout: Layout) -> None:
        """Check what is announced before a byte is kept; raises `ProtocolError`."""
        self._pipeline = buildable(begin.spec, "downlink")
        _check_size(begin, self._pipeline, layout)
        self._layout = layout
        if begin.base not in (NOTHING, phone_state.held_version):
            raise ProtocolError(f"difference to version {begin.base}, this phone holds {phone_state.held_version}")
        self._phone_state = phone_state
        self.begin = begin
        self.total_bytes = sum(begin.lengths)
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

    def weights(self, seed: int) -> F32:
        """Return the model, (parameters,) float32; raises `CodecError` where the bytes are not what was announced.

        Where some of them were kept from before, this phone's disk may have spoilt them: `SpoiltDownloadError`.
        """
        begin, payload = self.begin, bytes(self._phone_state.download)
        if blake2b(payload, digest_size=8).digest() != begin.digest:
            self._phone_state.begin_download(b"")
            fault = SpoiltDownloadError if begin.offset else CodecError
            raise fault(f"model of {len(payload)} bytes does not have the digest that was announced")
        return self._phone_state.decoded(begin, lambda: self._decode(payload, seed))

    def _decode(self, payload: bytes, seed: int) -> F32:
        begin, layout = self.begin, self._layout
        held = self._phone_state.weights
        weights = held if begin.base != NOTHING and held is not None else np.zeros(layout.size, np.float32)
        start = 0
        for step, length in enumerate(begin.lengths):
            key = RoundKey(seed, begin.base + 1 + step)
            weights = weights + self._pipeline.decode(payload[start : start + length], layout, key)
            start += length
        return weights


def buildable(spec: str, direction: str) -> Pipeline:
    """Return the pipeline of the server's spec; raises `ProtocolError` where this phone cannot build it."""
    try:
        return Pipeline.parse(spec, direction=direction)
    except SpecError as error:
        raise ProtocolError(f"the {direction} is no codec of this phone: {error}") from error


def _check_size(begin: ModelBegin, pipeline: Pipeline, layout: Layout) -> None:
    """Raise `ProtocolError` for more bytes than a model or a chain of differences can honestly have."""
    most, total = pipeline.max_bytes(layout), sum(begin.lengths)
    if max(begin.lengths) > most:
        raise ProtocolError(
            f"part of {max(begin.lengths)} bytes exceeds the {most} bytes that {begin.spec} can need for this model"
        )
    # A server sends the whole model in place of differences that are longer.
    whole = 4 * layout.size
    if len(begin.lengths) > 1 and total > whole:
        raise ProtocolError(f"differences of {total} bytes, and the whole model has {whole}")
