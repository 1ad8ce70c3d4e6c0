"""What is said of a run that went on without some of its phones."""

from collections.abc import Mapping


def lost_phones(phones: int, why: Mapping[str, str]) -> str:
    """Return a sentence about the phones that a run lost, of so many; `why` has for each name what it ended with.

    >>> lost_phones(10, {"phone-3": "its loss is not a number", "phone-7": "no examples"})
    'of 10 phones the run lost 2, the first of them phone-3: its loss is not a number'
    """
    first, reason = next(iter(why.items()))
    which = first if len(why) == 1 else f"{len(why)}, the first of them {first}"
    return f"of {phones} phones the run lost {which}: {reason}"
