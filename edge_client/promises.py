"""What a phone asks of a run before it takes part in it: that updates are masked, and that sums have noise."""

from featherfed.edge_client.phone_context import PhoneSettings
from featherfed.errors import LocalError, SecrecyError
from featherfed.wire.closing import readable
from featherfed.wire.messages import Welcome


class UnpromisedError(LocalError):
    """The run promises less than this phone's owner has asked for."""


def check_promises(welcome: Welcome, settings: PhoneSettings) -> None:
    """Raise `UnpromisedError` for a run that promises too little, and `SecrecyError` for a promise that cannot be."""
    run = readable(welcome.run)
    if settings.only_masked and not welcome.masked:
        raise UnpromisedError(
            f"run {run} does not mask updates, and this phone is to take part only where they are masked (--secure)"
        )
    if welcome.noise < (least := settings.least_noise):
        raise UnpromisedError(
            f"run {run} promises noise of {welcome.noise:g} in each sum, and this phone is to take part only where it"
            f" is at least {least:g} (--least-noise)"
        )
    if welcome.noise and not welcome.masked:
        raise SecrecyError(f"run {run} has phones add noise to what it does not mask")
