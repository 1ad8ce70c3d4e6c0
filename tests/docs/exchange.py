"""Write what docs/PROTOCOL.md takes from the code: `python -m tests.docs.exchange`.

The exchange in hex is recorded from a real run. Run by hand when the protocol changes; a test never writes what it
checks.
"""

import asyncio
import tempfile
from pathlib import Path

from featherfed.wire.messages import (
    PROTOCOL_VERSION,
    Accepted,
    Ack,
    AnyMessage,
    Finish,
    Hello,
    Task,
    UpdateBegin,
    UpdateChunk,
    Welcome,
    WholeModel,
    WholeUpdate,
    pack,
    unpack,
)
from tests.docs.learning import architecture_rows, data_rows, sgd_rows
from tests.docs.sizes import limit_rows, size_rows
from tests.docs.types import model_rows, session_rows
from tests.server.peer import Peer, digest, hello, peer
from tests.serving import serving

PAGE = Path(__file__).parents[2] / "docs" / "PROTOCOL.md"
CUT = 7
"""So many bytes of the update are durable when the first connection breaks."""
SPEC = "exact(0) | flat | subsample(1/1024) | rotate | eden(2)"
RUN, NAME = "5eed1e57", "phone-7"
SGD_HEAD = "| step | | g | g + λw + μ(w − w₀) | m | w after it |"


async def record() -> list[tuple[str, bytes]]:
    """Return (who, frame) of one phone's whole run of two rounds."""
    frames: list[tuple[str, bytes]] = []

    async def say(phone: Peer, message: AnyMessage) -> None:
        frames.append(("phone", pack(message)))
        await phone.send(message)

    async def hear(phone: Peer, kind: type[AnyMessage]) -> AnyMessage:
        frame = await phone.connection.recv(decode=False)
        message = unpack(frame)
        assert isinstance(message, kind), message
        frames.append(("server", frame))
        return message

    with tempfile.TemporaryDirectory() as folder:
        settings = {"phones": 1, "rounds": 2, "uplink": SPEC, "downlink": SPEC, "heartbeat": 20.0, "lr": 0.05}
        async with serving(Path(folder), run_id=RUN, **settings) as served, peer(served.address) as phone:
            await say(phone, hello(NAME))
            phone.welcome = await hear(phone, Welcome)  # type: ignore[assignment]
            for number in (1, 2):
                task = await hear(phone, Task if number == 1 else WholeModel)
                if isinstance(task, WholeModel):
                    task = task.task()
                payload = phone.update(task)  # type: ignore[arg-type]
                await say(phone, WholeUpdate(number, payload, 144))
                await hear(phone, Accepted)
            await hear(phone, Finish)
            await served.ended
    return frames


async def record_resume() -> list[tuple[str, bytes]]:
    """Return (who, frame) of an update whose link broke, from its first bytes on."""
    frames: list[tuple[str, bytes]] = []

    async def say(phone: Peer, message: AnyMessage) -> None:
        frames.append(("phone", pack(message)))
        await phone.send(message)

    async def hear(phone: Peer, kind: type[AnyMessage]) -> None:
        frames.append(("server", pack(await phone.receive_until(kind))))

    with tempfile.TemporaryDirectory() as folder:
        settings = {"phones": 1, "rounds": 1, "uplink": SPEC, "downlink": SPEC, "heartbeat": 20.0, "lr": 0.05}
        async with serving(Path(folder), run_id=RUN, **settings) as served:
            async with peer(served.address) as phone:
                await phone.join(NAME)
                payload = phone.update(await phone.task())
                update = UpdateBegin(1, len(payload), digest(payload), 144, 0, payload[:CUT])
                await say(phone, update)
                await hear(phone, Ack)
            async with peer(served.address) as phone:
                await say(phone, Hello(PROTOCOL_VERSION, NAME, -1, 0, run=RUN, held_version=0, pending_round=1))
                await hear(phone, Welcome)
                await say(phone, UpdateBegin(1, len(payload), digest(payload), 144, 0, b""))
                await hear(phone, Ack)
                await say(phone, UpdateChunk(CUT, payload[CUT:]))
                await hear(phone, Accepted)
            await served.ended
    return frames


def block(frames: list[tuple[str, bytes]]) -> str:
    """Return the frames as a fenced block, 32 bytes of hex a line."""
    lines = ["```"]
    for who, frame in frames:
        text = frame.hex()
        lines += [f"{who:<6}  {text[:64]}", *(f"        {text[at : at + 64]}" for at in range(64, len(text), 64))]
    return "\n".join([*lines, "```"])


def table(cells: list[list[str]]) -> str:
    """Return the rows of a table."""
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def main() -> None:
    """Write the exchanges and the tables between the page's markers."""
    text = PAGE.read_text(encoding="utf-8")
    for name, content in (
        ("session", f"| track | state | message | next state |\n|---|---|---|---|\n{table(session_rows())}"),
        ("models", f"| model | parameters | tensors |\n|---|--:|---|\n{table(model_rows())}"),
        ("limits", f"| what | limit | beyond it |\n|---|---|---|\n{table(limit_rows())}"),
        ("sizes", f"| | message | from | bytes at most |\n|--:|---|---|--:|\n{table(size_rows())}"),
        ("architecture", f"| model | layers |\n|---|---|\n{table(architecture_rows())}"),
        ("data", f"| data set | training examples N |\n|---|--:|\n{table(data_rows())}"),
        (
            "sgd",
            f"| step | | g | g + λw + μ(w − w₀) | m | w after it |\n|--:|---|--:|--:|--:|--:|\n{table(sgd_rows())}",
        ),
        ("exchange", block(asyncio.run(record()))),
        ("resume", block(asyncio.run(record_resume()))),
    ):
        before, rest = text.split(f"<!-- {name}: begin -->")
        _, after = rest.split(f"<!-- {name}: end -->")
        text = f"{before}<!-- {name}: begin -->\n{content}\n<!-- {name}: end -->{after}"
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
