"""What a phone keeps between connections, and in its state directory between lives.

Every file is replaced whole, so that a crash leaves the old one or the new one. Without a folder all is in memory.
A disk that fails raises `LocalError`.
"""

import contextlib
import os
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgpack
import msgspec
import numpy as np
import numpy.typing as npt

from featherfed.codec.downlink import Held
from featherfed.errors import ConfigError, LocalError
from featherfed.wire.messages import NOTHING, Count, Digest, ModelBegin, Version, digest_of
from featherfed.wire.pieces import Pieces

F32 = npt.NDArray[np.float32]
Label64 = Annotated[str, msgspec.Meta(max_length=64)]


@dataclass(frozen=True, slots=True)
class PendingUpdate:
    """A finished update that is not known to be accepted; `residual` is kept when it is, (parameters,) float32.

    Where updates are summed before they are decoded, `coordinates` are what was trained for the spec `uplink`, float32,
    on the model with the digest `model`; `payload` is made of them for the circle of an attempt, whose context is kept
    where it is masked. It is empty before the first one.
    """

    round_number: int
    payload: bytes
    examples: int
    residual: F32 | None
    coordinates: F32 | None = None
    uplink: str = ""
    model: bytes = b""
    attempt: int = 0
    context: bytes = b""


class PhoneState:
    """The phone's memory. Raises `ConfigError` where the folder cannot be used."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        if folder is not None:
            make_folder(folder)
        self.name = ""
        self.run = ""
        self.shard = NOTHING
        """What it plays in the run."""
        self.held_version = NOTHING
        self.weights: F32 | None = None
        self.initial: F32 | None = None
        """The weights of version 0, where the run's downlink has phones keep them."""
        self.pending: PendingUpdate | None = None
        self.accepted_round = NOTHING
        self._accepted: PendingUpdate | None = None  # without a folder
        self.secrets = b""
        """What `secrets` keeps of the run's masked rounds."""
        self.residual: F32 | None = None
        self.download_digest = b""
        self.download = Pieces()
        self._load()

    def name_phone(self, name: str | None) -> str:
        """Return the phone's name: the given one, the kept one, or a new random one."""
        wanted = name or self.name or f"phone-{secrets.token_hex(4)}"
        if wanted != self.name:
            self.name = wanted
            self._save_phone()
        return wanted

    def enter(self, run: str, shard: int) -> None:
        """Belong to a run and play a shard; what is left of another run, or was trained on another shard, goes."""
        if (run, shard) == (self.run, self.shard):
            return
        if run != self.run:
            self.held_version, self.weights, self.initial = NOTHING, None, None
            self.download_digest, self.download = b"", Pieces()
            self.secrets = b""
            for name in ("model", "initial", "download", "download.part", "secrets"):
                self._remove(name)
        self.run, self.shard = run, shard
        self.residual = None
        self.drop_update()
        self._drop_accepted()
        self._remove("residual")
        self._save_phone()

    def hold(self, version: int, weights: F32, initial: F32 | None = None, difference: bytes = b"") -> None:
        """Keep a model that arrived whole, and the initial weights if they are new.

        `difference` is the last part of what it came in.
        """
        if initial is not None and initial is not self.initial:
            # First: a model is a difference to it, and without the model it is sent again.
            self.initial = initial
            self._save("initial", {"weights": initial.astype("<f4").tobytes()})
        self.held_version, self.weights = version, weights
        self.download_digest, self.download = b"", Pieces()
        self._save("model", {"version": version, "weights": weights.astype("<f4").tobytes()})
        self._remove("download")
        self._remove("download.part")

    def drawn(self, draw: Callable[[], F32]) -> F32:
        """Return what `draw` gives, the run's initial weights; phones of one process may share them."""
        return draw()

    def begin_download(self, digest: bytes) -> None:
        """Start to keep the bytes of a model; those of another one are forgotten."""
        if digest == self.download_digest:
            return
        self.download_digest, self.download = digest, Pieces()
        self._remove("download.part")
        self._save("download", {"digest": digest})

    def extend_download(self, offset: int, data: bytes) -> None:
        """Keep the next bytes, from `offset` on."""
        self.download.put(offset, data)
        if self._folder is not None:
            path = self._folder / "download.part"
            with _writing(path), open(path, "r+b" if path.exists() else "w+b") as file:
                file.seek(offset)
                file.write(data)
                file.truncate()

    def downloaded(self, digest: bytes) -> bytes | None:
        """Return what was downloaded, or None where it has another digest; phones of one process may share it."""
        payload = bytes(self.download)
        return payload if digest_of(payload) == digest else None

    def decoded(self, begin: ModelBegin, decode: Callable[[], Held]) -> Held:
        """Return what a whole download makes; phones of one process may share what is the same for all."""
        return decode()

    def announce(self, update: PendingUpdate) -> bytes:
        """Return the digest of an update that is to be sent."""
        return digest_of(update.payload)

    def put_update(self, update: PendingUpdate) -> None:
        """Keep a finished update until it is accepted; the one before it is in the model by now, or too late."""
        self.pending = update
        self._drop_accepted()
        self._save(
            "update",
            {
                "round": update.round_number,
                "payload": update.payload,
                "examples": update.examples,
                "residual": _bytes(update.residual),
                "coordinates": _bytes(update.coordinates),
                "uplink": update.uplink,
                "model": update.model,
                "attempt": update.attempt,
                "context": update.context,
            },
        )

    def put_secrets(self, secrets: bytes) -> None:
        """Keep the phone's keys and what it has told: on the disk when this returns."""
        self.secrets = secrets
        self._save("secrets", {"secrets": secrets})

    def accepted(self, round_number: int) -> None:
        """Commit the residual of an accepted update: only now is it known that the rest was received.

        The update itself stays until the next one is finished: who accepted it may lose it (`take_back`).
        """
        if self.pending is None or self.pending.round_number != round_number:
            return
        if self.pending.residual is not None:
            self.residual = self.pending.residual
            self._save("residual", {"residual": self.residual.astype("<f4").tobytes()})
        self.accepted_round = round_number
        if self._folder is None:
            self._accepted = self.pending
        else:
            with _writing(self._folder / "accepted"):
                os.replace(self._folder / "update", self._folder / "accepted")
        self.pending = None

    def drop_secrets(self) -> None:
        """Forget the phone's keys."""
        self.secrets = b""
        self._remove("secrets")

    def take_back(self, round_number: int) -> PendingUpdate | None:
        """Make the accepted update of a round pending again, or return None if there is none.

        A gateway that has moved without its disk asks again for what it had accepted. The same bytes count as they
        did, and a second training would take the residual of the first.
        """
        if round_number == NOTHING or round_number != self.accepted_round:
            return None
        if self._folder is None:
            self.pending = self._accepted
        else:
            with _writing(self._folder / "update"):
                os.replace(self._folder / "accepted", self._folder / "update")
            self.pending = self._read_update("update")
        self.accepted_round, self._accepted = NOTHING, None
        return self.pending

    def drop_update(self) -> None:
        """Forget an update that is not wanted; the residual stays what it was."""
        self.pending = None
        self._remove("update")

    def _drop_accepted(self) -> None:
        self.accepted_round, self._accepted = NOTHING, None
        self._remove("accepted")

    def _save_phone(self) -> None:
        self._save("phone", {"name": self.name, "run": self.run, "shard": self.shard})

    def _load(self) -> None:
        if self._folder is None:
            return
        if phone := self._read("phone", name=Label64, run=Label64, shard=Version):
            self.name, self.run, self.shard = phone["name"], phone["run"], phone["shard"]
        if model := self._read("model", version=Version, weights=bytes):
            self.held_version, self.weights = model["version"], self._floats("model", model["weights"])
        if initial := self._read("initial", weights=bytes):
            self.initial = self._floats("initial", initial["weights"])
        self.pending = self._read_update("update")
        if accepted := self._read_update("accepted"):
            self.accepted_round = accepted.round_number
        if kept := self._read("secrets", secrets=bytes):
            self.secrets = kept["secrets"]
        if rest := self._read("residual", residual=bytes):
            self.residual = self._floats("residual", rest["residual"])
        if download := self._read("download", digest=Digest):
            try:
                part = (self._folder / "download.part").read_bytes()
            except FileNotFoundError:
                return
            except OSError as error:
                raise self._unreadable("download.part", str(error.strerror)) from error
            self.download_digest, self.download = download["digest"], Pieces(part)

    def _read(self, file: str, /, **kinds: Any) -> dict[str, Any]:
        """Return the fields of a file, or nothing where there is none; raises `ConfigError` for any other content.

        `kinds` are the wire's where a field is said to the server: what does not fit there is found before it is said.
        """
        assert self._folder is not None, "only a phone with a folder reads"
        path = self._folder / file
        try:
            content = msgpack.unpackb(path.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, msgpack.UnpackException) as error:
            raise self._unreadable(file, str(error)) from error
        if not isinstance(content, dict) or content.keys() != kinds.keys():
            raise self._unreadable(file, f"it does not hold {', '.join(kinds)}")
        for key, kind in kinds.items():
            try:
                msgspec.convert(content[key], kind)
            except msgspec.ValidationError as error:
                raise self._unreadable(file, f"its {key} is of another kind") from error
        return content

    def _read_update(self, file: str) -> PendingUpdate | None:
        update = self._read(
            file, round=Version, payload=bytes, examples=Count, residual=bytes | None, coordinates=bytes | None,
            uplink=str, model=bytes, attempt=Count, context=bytes,
        )  # fmt: skip
        if not update:
            return None
        residual, coordinates = (
            None if update[name] is None else self._floats(file, update[name]) for name in ("residual", "coordinates")
        )
        return PendingUpdate(
            update["round"], update["payload"], update["examples"], residual, coordinates, update["uplink"],
            update["model"],            update["attempt"], update["context"],
        )  # fmt: skip

    def _floats(self, name: str, data: bytes) -> F32:
        if len(data) % 4:
            raise self._unreadable(name, f"{len(data)} bytes are no float32 numbers")
        return np.frombuffer(data, "<f4").astype(np.float32)

    def _unreadable(self, name: str, why: str) -> ConfigError:
        assert self._folder is not None, "only a phone with a folder reads"
        return ConfigError(f"cannot read {self._folder / name}: {why}; remove it to begin anew")

    def _save(self, name: str, content: dict[str, Any]) -> None:
        if self._folder is None:
            return
        path, new = self._folder / name, self._folder / f"{name}.new"
        with _writing(path):
            with open(new, "wb") as file:
                file.write(msgpack.packb(content))
                file.flush()
                os.fsync(file.fileno())
            os.replace(new, path)

    def _remove(self, name: str) -> None:
        if self._folder is not None:
            with _writing(self._folder / name):
                (self._folder / name).unlink(missing_ok=True)


def _bytes(values: F32 | None) -> bytes | None:
    return None if values is None else values.astype("<f4").tobytes()


def make_folder(folder: Path) -> None:
    """Make a state directory if it is not there; raises `ConfigError` where that cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot use the state directory {folder}: {error.strerror}") from error


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise LocalError(
            f"cannot write {path}: {error.strerror}; the phone goes on from it when started again"
        ) from error
