from bandwidth_sim.profile import find_profile
from edge_client.one_phone import PhoneOptions
from edge_client.swarm import phone_options

OPTIONS = PhoneOptions(server="ws://127.0.0.1:8765", name="swarm", state_dir="/tmp/state")


def test_every_phone_has_a_name_and_a_folder_of_its_own() -> None:
    phones = phone_options(OPTIONS, 5, [])
    assert [phone.name for phone in phones] == [f"swarm-{number}" for number in range(5)]
    assert len({phone.state_dir for phone in phones}) == 5
    assert all(phone.server == OPTIONS.server and phone.profile is None for phone in phones)


def test_links_are_dealt_in_turn() -> None:
    profiles = [find_profile(name) for name in ("2g", "3g")]
    dealt = [phone.profile.name for phone in phone_options(OPTIONS, 5, profiles) if phone.profile]
    assert dealt == ["2g", "3g", "2g", "3g", "2g"]


def test_phones_without_a_folder_share_none() -> None:
    phones = phone_options(PhoneOptions(server="ws://x"), 2, [])
    assert [(phone.name, phone.state_dir) for phone in phones] == [("swarm-0", None), ("swarm-1", None)]
