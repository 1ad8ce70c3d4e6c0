from dataclasses import replace

from featherfed.bandwidth_sim.profile import find_profile, profile_from_flags
from featherfed.edge_client.one_phone import link_label, link_rate


def test_phone_names_its_link_and_what_it_can_carry_up() -> None:
    profile = find_profile("3g")
    assert (link_label(profile), link_rate(profile)) == ("3g", int(profile.up.goodput_bytes_per_s))
    assert link_rate(profile) < 768_000 / 8, "headers take their part"


def test_link_without_a_limit_or_a_name_says_so() -> None:
    assert (link_label(None), link_rate(None)) == ("", 0)
    delayed = profile_from_flags(latency="10ms")
    assert delayed is not None
    assert link_rate(delayed) == 0


def test_label_keeps_to_what_a_hello_takes() -> None:
    profile = replace(find_profile("2g"), name="a\x1b[31m" + "b" * 100)
    assert link_label(profile) == "a[31m" + "b" * 27
