"""Which versions belong to a run's downlink."""

from featherfed.codec.chain import Chain
from featherfed.codec.downlink_grammar import parse_downlink
from featherfed.codec.fresh import Fresh
from featherfed.codec.lattice import Lattice
from featherfed.codec.layout import Layout
from featherfed.server.model.chain_versions import ChainVersions
from featherfed.server.model.fresh_versions import FreshVersions
from featherfed.server.model.lattice_versions import LatticeVersions
from featherfed.server.model.versions import Versions


def versions_of(spec: str, layout: Layout, seed: int) -> Versions:
    """Return the versions, none yet, of a run with this `--downlink`; raises `SpecError`."""
    match parse_downlink(spec):
        case Chain(pipeline):
            return ChainVersions(layout, pipeline, seed)
        case Fresh() as fresh:
            return FreshVersions(layout, fresh, seed)
        case Lattice() as lattice:
            return LatticeVersions(layout, lattice)
        case other:
            raise AssertionError(f"no versions for the downlink {other}")
