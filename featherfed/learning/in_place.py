"""Passes that step on the model's own weights."""


class InPlace:
    """What passes have in common that step on the model's own weights."""

    at_once = 1

    def begin(self) -> None:
        """Do nothing: the model's weights are those that are descended from."""

    def end(self) -> None:
        """Do nothing: they are what was descended to."""
