"""The one error of bad input."""


class LinkConfigError(ValueError):
    """A link that cannot be built from what was written; the sentence says why and names the way out."""
