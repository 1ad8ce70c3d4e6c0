"""What every tree is held to: the model that one server makes."""

import asyncio
from pathlib import Path

import pytest

from tests.gateway.held import eager
from tests.gateway.trees import SETTINGS, play_all
from tests.serving import serving

__all__ = ["eager"]


@pytest.fixture(scope="session")
def one_server(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The model that one server makes of the run."""

    async def run(folder: Path) -> bytes:
        async with serving(folder, **SETTINGS) as served:
            await play_all((served.address, shard) for shard in range(6))
            assert await served.ended is None
        return (folder / "run" / "model.safetensors").read_bytes()

    return asyncio.run(run(tmp_path_factory.mktemp("one")))
