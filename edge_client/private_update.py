"""A phone's whole numbers where a run is differentially private: bounded, and with the noise that it has promised."""

from featherfed.codec import residues as packing
from featherfed.codec import steps as stepping
from featherfed.codec.residues import Residues
from featherfed.codec.space import F32
from featherfed.codec.summable import Summable
from featherfed.errors import SecrecyError
from featherfed.privacy.bounded import Bound
from featherfed.privacy.discrete_gaussian import DiscreteGaussian, Source
from featherfed.privacy.phones_noise import LARGEST_SIGMA, Promise
from featherfed.randomness import RoundKey
from featherfed.wire.messages import Circle, Welcome


def private_residues(
    summable: Summable, coordinates: F32, circle: Circle, welcome: Welcome, source: Source
) -> Residues:
    """Return what a phone adds to its circle's sum: (K,), below 2^r.

    `coordinates`: (space.size,) float32, what was trained. `source` is secret, and gives all that is random here: one
    that gives the same again gives the same update. Raises `SecrecyError` for a circle in which less noise would be in
    the sum than the run has promised, or in which no noise would do.
    """
    summable.step_sizes(circle.steps)
    if circle.slices > 1 or len(set(circle.steps)) > 1:
        raise SecrecyError(
            f"a circle with steps {circle.steps.hex()} and {circle.slices} slices, in a run with differential privacy,"
            " whose phones have one step and one slice"
        )
    bound = Bound(stepping.size_of(circle.steps[0]), summable.coordinates)
    values = summable.values(coordinates, RoundKey(welcome.seed, circle.round, welcome.shard))
    wholes = bound.rounded(values, summable.clip, source)
    if welcome.noise:
        sigma = Promise(welcome.noise, welcome.colluding).sigma(bound, circle.least, len(circle.members))
        if sigma > LARGEST_SIGMA:
            raise SecrecyError(f"noise of {sigma} steps is beyond the {LARGEST_SIGMA} that a sum can have")
        wholes += DiscreteGaussian(sigma, source=source).draw(len(wholes))
    wholes &= (1 << summable.bits) - 1
    return wholes.astype(packing.dtype_of(summable.bits))
