"""`python -m lab curious`: what a server that follows the protocol and keeps every byte can make of one masked round.

Each phone makes one step of softmax regression on its examples, from weights of zero: the worst case for a phone, since
such a gradient is its data in linear form. With p = 1/10 for each label, the update of a phone's examples x with labels
y is, up to the rate, a row Σ_{y = c} x − Σ x / 10 and a number Σ_{y = c} 1 − n / 10 for each label c. The numbers give
how many examples have each label. A label that nobody has gives Σ x, so that each other row gives the sum of its
label's images: where that is one image it lies open.

The same attack is made on an update in the clear, on one phone's masked upload with all masks off that the server can
take off, and on the sum of the circle.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lab.documents import fill

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    F64 = npt.NDArray[np.float64]
    Images = npt.NDArray[np.float64]

BITS = 14
STEP = 2.0**-7
"""Large enough that no sum here wraps, fine enough to see one image's greys."""
LABELS = 10
TRIALS = 40


@dataclass(frozen=True, slots=True)
class Guess:
    """What an attack makes of an update: how many examples have each label, and one image."""

    labels: "F64"
    image: "F64"


def update_of(images: "Images", labels: "npt.NDArray[np.int64]") -> "F64":
    """Return a phone's update, (10, pixels + 1): the rows of the labels, each with its number at the end."""
    import numpy as np

    there = np.eye(LABELS, dtype=np.float64)[labels] - np.float64(1 / LABELS)
    found: F64 = there.T @ np.hstack([images, np.ones((len(images), 1))])
    return found


def attacked(update: "F64", examples: int) -> Guess:
    """Return what can be said of the examples of an update, or of a sum of updates."""
    import numpy as np

    rows, numbers = update[:, :-1], update[:, -1] + examples / LABELS
    # The row of a label that nobody has is −Σ x / 10; where all are there, the rarest is taken for it.
    rarest = int(np.argmin(numbers))
    fewest = np.abs(numbers - numbers[rarest] - 1)
    fewest[rarest] = np.inf
    return Guess(np.clip(numbers, 0, None), (rows - rows[rarest])[int(np.argmin(fewest))])


def one_circle(members: int, examples: int, seed: int) -> dict[str, tuple[float, float]]:
    """Return by what the server looks at: the share of a phone's labels that it knows, and its image's correlation.

    An image is compared with the nearest that it may be: the phone's own, or for sums and guesses any of the circle.
    """
    import numpy as np

    from featherfed.problems.digits import load

    draw = np.random.default_rng(seed)
    pixels, classes = load(Path(), train=True)
    chosen = draw.permutation(len(pixels))[: (members + 1) * examples].reshape(members + 1, examples)
    images = pixels.reshape(len(pixels), -1)[chosen].astype(np.float64) / 255
    updates = [update_of(images[phone], classes[chosen[phone]]) for phone in range(members + 1)]
    seen = {"its update in the clear": np.rint(updates[0] / STEP) * STEP}
    seen["its masked upload"], seen["the circle's sum"] = masked_round(updates[:members], seed)
    found = {}
    truth = np.bincount(classes[chosen[0]], minlength=LABELS)
    for name, update in seen.items():
        whole = name == "the circle's sum"
        guess = attacked(update, examples * (members if whole else 1))
        labels = guess.labels / max(guess.labels.sum(), 1e-9) * examples
        among = images[:members] if whole else images[:1]
        found[name] = float(np.minimum(labels, truth).sum()) / examples, nearest(guess.image, among)
    # Of who looks at nothing: labels as likely as any, and an image of a phone outside.
    blind = float(np.minimum(examples / LABELS, truth).sum()) / examples
    found["nothing"] = blind, nearest(images[-1, 0], images[:members])
    return found


def nearest(image: "F64", images: "Images") -> float:
    """Return the correlation of an image with the nearest of some."""
    import numpy as np

    flat = images.reshape(-1, image.size)
    return max(float(np.corrcoef(image, other)[0, 1]) for other in flat)


def masked_round(updates: "list[F64]", seed: int) -> "tuple[F64, F64]":
    """Return what is left of the first phone's upload when all is off that the server can take off, and the sum."""
    import numpy as np

    from featherfed.secure import circles, keys
    from featherfed.secure.context import Context
    from featherfed.secure.member import Member
    from featherfed.secure.opening import Upload, open_circle
    from featherfed.secure.streams import Masked

    shards = tuple(range(len(updates)))
    phones = [keys.PhoneKey.new() for _ in shards]
    context = Context(
        run="curious", round_number=seed, attempt=0, circle=0, threshold=circles.threshold_of(len(shards)),
        least=circles.least_of(len(shards)), uplink=f"grid({BITS})", bits=BITS, steps=b"", clip=0.0, model=b"",
        members=shards, keys=tuple(phone.public for phone in phones),
    )  # fmt: skip
    uploads: dict[int, Upload] = {}
    shares: dict[tuple[int, int], bytes] = {}
    own = b""
    everybody = frozenset(shards)
    for shard in shards:
        own_seed = keys.new_own_seed()
        own = own or own_seed
        member = Member.begin(phones[shard], own_seed, context, shard, least_circle=3)
        residues = (np.rint(updates[shard].ravel() / STEP).astype(np.int64) % (1 << BITS)).astype("<u2")
        uploads[shard] = Upload(*member.mask(1, residues))
        answer = member.answer(1, True, everybody, everybody - {shard})
        others = [other for other in shards if other != shard]
        shares |= {(shard, other): answer[16 * place : 16 * place + 16] for place, other in enumerate(others)}
    opened = open_circle(context, uploads, everybody, {}, shares)
    # Its own seed comes from the shares: the server takes its stream off.
    left = Masked(uploads[0].word, uploads[0].residues, bits=BITS, digest=context.digest)
    left.add_stream(own, -1)
    shape = updates[0].shape
    return tuple(  # type: ignore[return-value]
        np.where(numbers < 1 << (BITS - 1), numbers, numbers - float(1 << BITS)).reshape(shape) * STEP
        for numbers in (left.residues.astype(np.float64), opened.residues.astype(np.float64))
    )


def table(trials: int) -> str:
    """Return the table of docs/PRIVACY.md."""
    import numpy as np

    names = ("its update in the clear", "its masked upload", "the circle's sum", "nothing")
    lines = [
        "| examples of a phone, phones of a circle | " + " | ".join(names) + " |",
        "|---|" + "--:|" * len(names),
    ]
    for examples in (1, 10, 60):
        for members in (5, 10, 20):
            if members * examples > 1200:
                continue
            rows = [one_circle(members, examples, seed) for seed in range(1, trials + 1)]
            cells = []
            for name in names:
                labels, image = np.mean([row[name] for row in rows], axis=0)
                cells.append(f"{labels:.0%}, {image:.2f}")
            lines.append(f"| {examples}, {members} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


@click.command
@click.option("--trials", default=TRIALS, show_default=True, help="Circles of each row.")
@click.option("--write", type=click.Path(path_type=Path, exists=True), help="Fill this document's table.")
def curious(trials: int, write: Path | None) -> None:
    """Attack one masked round as a server that keeps every byte: labels and images, by update, upload and sum."""
    found = table(trials)
    click.echo(found)
    if write:
        fill(write, {"curious": found})
