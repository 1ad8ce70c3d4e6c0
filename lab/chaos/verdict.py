"""What a run under faults must have in common with the calm one, and its figures for docs/RELIABILITY.md."""

import statistics

from lab.chaos.arena import Outcome
from lab.chaos.schedule import Schedule


def broken_promises(schedule: Schedule, calm: Outcome, outcome: Outcome) -> list[str]:
    """Return a sentence for each promise that the run did not keep."""
    witness = outcome.witness
    found = []
    if outcome.closed != schedule.rounds:
        found.append(f"{outcome.closed} of {schedule.rounds} rounds were closed")
    if witness.lost_bytes:
        found.append(f"{witness.lost_bytes} acknowledged bytes were unknown to the server later")
    if witness.again_bytes:
        found.append(
            f"{witness.again_bytes} bytes were uploaded again after they had been acknowledged"
            f" (first {witness.first_again})"
        )
    if outcome.unexplained_bytes:
        found.append(f"the ledger books {outcome.unexplained_bytes} bytes of payload twice, or not at all")
    for run, name in ((calm, "calm"), (outcome, "chaotic")):
        # Downwards it counts what a server hands to its socket, some of which dies with the connection.
        if run.ledger_up > run.up_bytes:
            found.append(f"the ledger of the {name} run holds bytes that no socket carried")
    if (calm.ledger_up, calm.ledger_down) != (calm.up_bytes, calm.down_bytes):
        found.append(
            f"the calm run's ledger holds {calm.ledger_up} bytes up and {calm.ledger_down} down,"
            f" its sockets carried {calm.up_bytes} and {calm.down_bytes}"
        )
    if schedule.mode == "sync":
        if outcome.accepted != calm.accepted:
            found.append("other updates were accepted than in the calm run")
        if outcome.model != calm.model:
            found.append(f"the model is {outcome.model[:12]}…, the calm run's is {calm.model[:12]}…")
    return found


def figures(runs: list[tuple[str, Schedule, Outcome]]) -> str:
    """Return the figures of runs, each with its name, as a Markdown table: a column each."""
    columns = [_column(schedule, outcome) for _, schedule, outcome in runs]
    head = ["", *(name for name, _, _ in runs)]
    rows = [head, ["---"] * len(head), *([row, *(column[row] for column in columns)] for row in columns[0])]
    return "\n".join(f"| {' | '.join(cells)} |".replace("|  |", "| |") for cells in rows)


def _column(schedule: Schedule, outcome: Outcome) -> dict[str, str]:
    witness, breaks = outcome.witness, outcome.breaks
    forgotten = outcome.up_bytes - outcome.ledger_up
    return {
        "problem": f"`{schedule.problem}`",
        "up": f"`{schedule.uplink}`".replace("|", "\\|"),
        "down": f"`{schedule.downlink}`".replace("|", "\\|"),
        "mode, link": ", ".join(
            [
                schedule.mode,
                schedule.bandwidth or "loopback",
                *["TLS"] * schedule.tls,
                *["masked"] * schedule.secure,
                *[f"{schedule.gateways} gateways"] * bool(schedule.gateways),
            ]
        ),
        "phones, rounds": f"{schedule.phones}, {outcome.closed} of {schedule.rounds} closed",
        "`kill -9` of phones": f"{outcome.phone_kills}",
        "`kill -9` of the server": f"{outcome.server_kills}",
        "connections reset, ended, silenced": f"{breaks['rst']}, {breaks['fin']}, {breaks['silence']}",
        "downloads cut": f"{outcome.downloads_cut}",
        "uploads cut": f"{outcome.uploads_cut}",
        "updates accepted, each counted once": f"{sum(map(len, outcome.accepted.values()))}",
        "acknowledged bytes lost": f"{witness.lost_bytes}",
        "acknowledged bytes uploaded again": f"{witness.again_bytes}",
        "payload of what counts, bytes": f"{outcome.counted_bytes:,}",
        "payload on the wire, bytes in whole messages": f"{witness.payload_bytes:,}",
        "payload that the ledger cannot explain, bytes": f"{outcome.unexplained_bytes}",
        "on the sockets, up, bytes": f"{outcome.up_bytes:,}",
        "of them not in the ledger: they died on the way or with a server": f"{forgotten:,}",
        "server listens again after": _spread(outcome.restart_s),
        "final model": "any" if schedule.mode != "sync" else f"the calm run's, SHA-256 {outcome.model[:8]}…",
        "seconds": f"{outcome.seconds:.0f}",
    }


def _spread(seconds: list[float]) -> str:
    if not seconds:
        return "never killed"
    return f"median {statistics.median(seconds):.1f} s, at most {max(seconds):.1f} s"
