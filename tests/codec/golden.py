"""Write golden.json anew: `python -m tests.codec.golden`. Run by hand only; a test never creates what it checks."""

import hashlib
import json

from featherfed.codec.layout import Layout, Tensor

from .specs import ALL_SPECS
from .test_conformance import GOLDEN, golden_payload


def main() -> None:
    layout = Layout(
        (
            Tensor("a", (40, 30)),
            Tensor("a.bias", (40,)),
            Tensor("conv", (8, 3, 5, 5)),
            Tensor("long", (131,)),
            Tensor("one", (1,)),
        )
    )
    golden = {}
    for spec in ALL_SPECS:
        payload = golden_payload(spec, layout)
        golden[spec] = [len(payload), hashlib.sha256(payload).hexdigest()]
    GOLDEN.write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main()
