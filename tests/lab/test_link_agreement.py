from dataclasses import replace

from featherfed.bandwidth_sim.profile import profile_from_flags
from featherfed.bandwidth_sim.virtual import VirtualDialer, run
from featherfed.server.config import RunConfig
from lab.link_agreement import STEP_S, STEPS, agreement, uploads

CONFIG = RunConfig(
    problem="digits", phones=3, cohort=3, rounds=1, uplink="rotate | eden(1)", downlink="rotate | eden(4)"
)


def test_virtual_time_sends_what_real_time_sends_and_is_never_slower() -> None:
    """The 3 % of a quiet machine stands in docs/LINKS.md; a busy one is only ever later than virtual time."""
    profile = profile_from_flags(bandwidth="64kbps", latency="50ms")
    assert profile is not None
    for real, virtual in agreement(profile, CONFIG):
        assert (real.phone, real.round_number) == (virtual.phone, virtual.round_number)
        assert real.payload_bytes == virtual.payload_bytes > 1000
        wire_s = virtual.payload_bytes / profile.up.goodput_bytes_per_s + profile.rtt_s
        assert wire_s < virtual.took_s < 1.1 * wire_s
        assert real.took_s > 0.98 * virtual.took_s


def test_a_run_in_virtual_time_is_the_same_again_and_trains_on_its_own_clock() -> None:
    profile = profile_from_flags(bandwidth="256kbps", drop_every="30kB")
    assert profile is not None
    config = replace(CONFIG, phones=6, cohort=4, rounds=2, uplink="float32")
    logs: list[list[tuple[object, ...]]] = [[], []]
    for log in logs:
        run(uploads(profile, config, VirtualDialer), log=lambda *event, log=log: log.append(event))
    assert logs[0] == logs[1]
    assert {event[2] for event in logs[0]} >= {"open", "up", "down", "drop-reset", "closed"}
    assert logs[0][-1][0] > 2 * STEPS * STEP_S
