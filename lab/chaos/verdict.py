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
        found.append(f"{witness.again_bytes} bytes were uploaded again after they had been acknowledged")
    if outcome.unexplained_bytes:
        found.append(f"the ledger books {outcome.unexplained_bytes} bytes of payload twice, or not at all")
    for run, name in ((calm, "calm"), (outcome, "chaotic")):
        if run.ledger_up > run.up_bytes or run.ledger_down > run.down_bytes:
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


def figures(schedule: Schedule, outcome: Outcome) -> str:
    """Return the figures as a Markdown table."""
    witness = outcome.witness
    forgotten = outcome.up_bytes - outcome.ledger_up
    rows = [
        ("phones, rounds", f"{schedule.phones}, {outcome.closed} of {schedule.rounds} closed"),
        ("`kill -9` of phones", f"{outcome.phone_kills}"),
        ("`kill -9` of the server", f"{outcome.server_kills}"),
        ("connections reset in the middle", f"{outcome.resets}"),
        ("updates accepted", f"{sum(map(len, outcome.accepted.values()))}, each counted once"),
        ("acknowledged bytes lost", f"{witness.lost_bytes}"),
        ("acknowledged bytes uploaded again", f"{witness.again_bytes}"),
        ("payload of what counts", f"{outcome.counted_bytes:,} bytes"),
        ("payload on the wire", f"{witness.payload_bytes:,} bytes in whole messages"),
        ("payload that the ledger cannot explain", f"{outcome.unexplained_bytes} bytes"),
        ("on the sockets, up", f"{outcome.up_bytes:,} bytes; {forgotten:,} of them died with a killed server"),
        ("server listens again after", _spread(outcome.restart_s)),
        ("final model", f"bit-identical to the calm run's, SHA-256 {outcome.model[:16]}…"),
        ("seconds", f"{outcome.seconds:.0f}"),
    ]
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {text} |" for name, text in rows)])


def _spread(seconds: list[float]) -> str:
    if not seconds:
        return "never killed"
    return f"median {statistics.median(seconds):.1f} s, at most {max(seconds):.1f} s"
