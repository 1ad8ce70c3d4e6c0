"""What both ends must have alike of a model: the tensors that travel, and those that do not but must be the same."""

import hashlib
from dataclasses import dataclass
from functools import cached_property

from featherfed.codec.layout import Layout, Tensor


@dataclass(frozen=True)
class Fingerprint:
    """`layout` is what travels; `fixed` are frozen parameters and buffers, each with a digest of 8 bytes."""

    layout: Layout
    fixed: tuple[tuple[Tensor, bytes], ...] = ()

    @cached_property
    def digest(self) -> bytes:
        """The first 8 bytes of SHA-256 over names, shapes and digests."""
        text = "\n".join(f"{name}/{'x'.join(map(str, shape))}/{digest.hex()}" for name, shape, digest in self.rows())
        return hashlib.sha256(text.encode()).digest()[:8]

    def rows(self) -> list[tuple[str, tuple[int, ...], bytes]]:
        """Return (name, shape, digest) of each tensor, the digest empty where it travels."""
        learned = [(tensor.name, tensor.shape, b"") for tensor in self.layout.tensors]
        return learned + [(tensor.name, tensor.shape, digest) for tensor, digest in self.fixed]

    @classmethod
    def of_rows(cls, rows: "list[tuple[str, tuple[int, ...], bytes]]") -> "Fingerprint":
        """Return what `rows` were made of."""
        tensors = [(Tensor(name, shape), digest) for name, shape, digest in rows]
        return cls(
            Layout(tuple(tensor for tensor, digest in tensors if not digest)),
            tuple((tensor, digest) for tensor, digest in tensors if digest),
        )

    def difference(self, other: "Fingerprint") -> str | None:
        """Return a sentence about the first tensor in which the server's model, `other`, differs from this one."""
        ours, theirs = ({tensor.name: tensor for tensor in each.layout.tensors} for each in (self, other))
        for name, tensor in theirs.items():
            if name not in ours:
                return f"the server's model has a tensor {name!r} of shape {_spelled(tensor)}, and this one has not"
            if ours[name].shape != tensor.shape:
                return f"tensor {name!r} has shape {_spelled(ours[name])} here and {_spelled(tensor)} at the server"
        for name, tensor in ours.items():
            if name not in theirs:
                return f"this model has a tensor {name!r} of shape {_spelled(tensor)}, and the server's has not"
        for at, (mine, yours) in enumerate(zip(self.layout.tensors, other.layout.tensors, strict=True)):
            if mine != yours:
                return f"tensor {at} is {mine.name!r} here and {yours.name!r} at the server: their order differs"
        kept, wanted = ({t.name: (t.shape, digest) for t, digest in each.fixed} for each in (self, other))
        for name in [*wanted, *kept]:
            if kept.get(name) != wanted.get(name):
                return (
                    f"tensor {name!r} is not learned, and must be the same on both ends: it differs from the server's;"
                    " load it from the same file, or make it under the seed that model() is called under"
                )
        return None


def _spelled(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "one number"
