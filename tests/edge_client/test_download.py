from hashlib import sha256

import numpy as np
import pytest

from featherfed.codec.layout import Layout, Tensor
from featherfed.codec.pipeline import Pipeline
from featherfed.edge_client.download import Download
from featherfed.edge_client.phone_state import PhoneState
from featherfed.errors import CodecError, ProtocolError
from featherfed.randomness import RoundKey
from featherfed.server.model.version_kinds import versions_of
from featherfed.wire.messages import NOTHING, ModelBegin

LAYOUT = Layout((Tensor("a", (40, 10)),))
SPEC = "rotate | eden(4)"
SEED = 5


def digest(payload: bytes) -> bytes:
    return sha256(payload).digest()[:8]


def steps() -> tuple[list[bytes], np.ndarray]:
    """Return two encoded differences and what they make of nothing."""
    pipeline, total, parts = Pipeline.parse(SPEC, direction="downlink"), np.zeros(LAYOUT.size, np.float32), []
    for version in (0, 1):
        delta = np.random.default_rng(version).standard_normal(LAYOUT.size).astype(np.float32)
        parts.append(pipeline.encode(delta, LAYOUT, RoundKey(SEED, version)).payload)
        total = total + pipeline.decode(parts[-1], LAYOUT, RoundKey(SEED, version))
    return parts, total


def test_model_comes_together_from_chunks_and_differences() -> None:
    parts, expected = steps()
    payload = b"".join(parts)
    download = Download(
        ModelBegin(1, NOTHING, SPEC, list(map(len, parts)), digest(payload), 0, payload[:50]), PhoneState(None), LAYOUT
    )
    assert not download.complete
    download.extend(50, payload[50:])
    assert download.complete
    assert download.held(SEED).weights.tobytes() == expected.tobytes()


def test_difference_is_added_to_what_the_phone_holds() -> None:
    parts, expected = steps()
    phone_state = PhoneState(None)
    phone_state.hold(0, Pipeline.parse(SPEC, direction="downlink").decode(parts[0], LAYOUT, RoundKey(SEED, 0)))
    begin = ModelBegin(1, 0, SPEC, [len(parts[1])], digest(parts[1]), 0, parts[1])
    assert Download(begin, phone_state, LAYOUT).held(SEED).weights.tobytes() == expected.tobytes()


@pytest.mark.parametrize("spec", ["lattice(1)", "fresh | rotate | eden(4)"])
def test_phone_keeps_the_initial_weights_that_differences_come_back_to(spec: str) -> None:
    versions, phone_state = versions_of(spec, LAYOUT, SEED), PhoneState(None)
    models = [np.random.default_rng(seed).standard_normal(LAYOUT.size).astype(np.float32) for seed in range(3)]
    for base, model in zip((NOTHING, NOTHING, 0), models, strict=True):
        versions.publish(model)
        parcel = versions.parcel(base)
        begin = ModelBegin(
            parcel.version, parcel.base, parcel.spec, list(parcel.lengths), parcel.digest, 0, parcel.payload
        )
        download = Download(begin, phone_state, LAYOUT)
        download.keep(download.held(SEED))
        assert phone_state.held_version == parcel.version
        assert phone_state.weights.tobytes() == versions.view.tobytes()
        assert phone_state.initial.tobytes() == models[0].tobytes()


@pytest.mark.parametrize("spec", ["lattice(1)", "fresh | float32"])
def test_difference_to_initial_weights_that_the_phone_does_not_have_is_refused(spec: str) -> None:
    phone_state = PhoneState(None)
    phone_state.hold(3, np.zeros(LAYOUT.size, np.float32))
    with pytest.raises(ProtocolError, match="difference to version 0, this phone holds 3"):
        Download(ModelBegin(5, 0, spec, [3], b"12345678", 0, b"abc"), phone_state, LAYOUT)


def test_difference_to_a_version_that_the_phone_does_not_hold_is_refused() -> None:
    with pytest.raises(ProtocolError, match="difference to version 4, this phone holds -1"):
        Download(ModelBegin(5, 4, SPEC, [3], b"12345678", 0, b"abc"), PhoneState(None), LAYOUT)


def test_gap_before_the_first_byte_is_refused() -> None:
    with pytest.raises(ProtocolError, match="model from byte 7 on, this phone has 0"):
        Download(ModelBegin(0, NOTHING, SPEC, [10], b"12345678", 7, b"abc"), PhoneState(None), LAYOUT)


def test_wrong_digest_is_refused_and_the_bytes_are_not_kept() -> None:
    phone_state = PhoneState(None)
    download = Download(ModelBegin(0, NOTHING, "float32", [1600], b"12345678", 0, bytes(1600)), phone_state, LAYOUT)
    with pytest.raises(CodecError, match="model of 1600 bytes does not have the digest"):
        download.held(SEED)
    assert (phone_state.download_digest, bytes(phone_state.download)) == (b"", b"")


def test_bytes_that_do_not_decode_are_the_server_s_fault() -> None:
    payload = bytes(1599)
    download = Download(
        ModelBegin(0, NOTHING, "float32", [1599], digest(payload), 0, payload), PhoneState(None), LAYOUT
    )
    with pytest.raises(CodecError):
        download.held(SEED)


@pytest.mark.parametrize(
    ("lengths", "words"),
    [
        ([1 << 50], r"part of 1125899906842624 bytes exceeds the 1600 bytes that float32 can need"),
        ([1601], "part of 1601 bytes exceeds the 1600"),
        ([1600, 1], "differences of 1601 bytes, and the whole model has 1600"),
        ([1] * 4096, "differences of 4096 bytes"),
    ],
)
def test_model_that_no_server_needs_to_send_is_refused_before_a_byte_is_kept(lengths: list[int], words: str) -> None:
    phone_state = PhoneState(None)
    with pytest.raises(ProtocolError, match=words):
        Download(ModelBegin(0, NOTHING, "float32", lengths, b"12345678", 0, b"abc"), phone_state, LAYOUT)
    assert not phone_state.download and not phone_state.download_digest


def test_model_in_a_codec_that_is_none_is_the_server_s_fault() -> None:
    with pytest.raises(ProtocolError, match=r"the downlink is no codec of this phone: .*zip"):
        Download(ModelBegin(0, NOTHING, "zip(9)", [3], b"12345678", 0, b"abc"), PhoneState(None), LAYOUT)
