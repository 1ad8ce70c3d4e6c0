"""The seconds that a run has been served, over all lives of its server; pauses between them are left out."""

import asyncio


class RunClock:
    """Counts by the running event loop's clock, on top of what earlier lives have counted."""

    def __init__(self, served_s: float) -> None:
        self._served_s = served_s
        self.start()

    def start(self) -> None:
        """Count from now on; what was counted since the last start is forgotten."""
        self._started_s = asyncio.get_running_loop().time()

    def now_s(self) -> float:
        """Return the seconds so far."""
        return self._served_s + asyncio.get_running_loop().time() - self._started_s
