"""What the page knows of a run, event by event."""

import msgspec

from featherfed.by_round import ByRound
from featherfed.server.dashboard.timeline import KeptTimeline, keep, read
from featherfed.server.dashboard.view import PhoneState, Snapshot

from .stage import Play

S = PhoneState


def states(play: Play) -> list[PhoneState]:
    return [PhoneState(row.state) for row in play.scene.snapshot().phones]


def test_phone_goes_from_download_over_training_to_an_update_that_counts(play: Play) -> None:
    for shard in range(3):
        play.come(shard)
    scene = play.at(1.0)
    scene.round_opened(1, 0, frozenset({0, 1}))
    scene.download_began(0, 1)
    assert states(play) == [S.DOWNLOADING, S.WAITING, S.WAITING]
    play.at(1.5).download_ended(0, 1)
    assert states(play)[0] is S.TRAINING
    play.at(3.0).upload_advanced(0, 1, 250, 1000)
    assert states(play)[0] is S.UPLOADING
    assert scene.snapshot().phones[0].progress == 0.25
    play.at(4.0).update_accepted(0, 1, 1, 2)
    assert states(play)[0] is S.ACCEPTED
    timeline = scene.snapshot().timeline
    assert timeline is not None
    assert timeline.lanes == {0: [(0.0, S.WAITING), (0.0, S.DOWNLOADING), (0.5, S.TRAINING), (2.0, S.UPLOADING),
                                  (3.0, S.ACCEPTED)], 1: [(0.0, S.WAITING)]}  # fmt: skip


def test_phone_downloads_until_its_kernel_has_all_of_the_model(play: Play) -> None:
    play.come(0)
    scene = play.at(0.0)
    scene.round_opened(1, 0, frozenset({0}))
    play.sockets.waiting[0] = 5000
    scene.download_began(0, 1)
    scene.download_ended(0, 1)
    assert states(play) == [S.DOWNLOADING]
    play.at(2.0).drain()
    assert states(play) == [S.DOWNLOADING]
    play.sockets.waiting[0] = 0
    play.at(3.0).drain()
    assert states(play) == [S.TRAINING]


def test_upload_is_seen_before_its_first_frame_is_whole(play: Play) -> None:
    play.come(0)
    scene = play.at(0.0)
    scene.round_opened(1, 0, frozenset({0}))
    scene.download_began(0, 1)
    scene.download_ended(0, 1)
    play.carry(1, 0, up=10)
    play.at(5.0).look()
    assert states(play) == [S.TRAINING], "a pong is no upload"
    play.carry(1, 0, up=490)
    play.sockets.began_s[0] = 4.5
    play.at(5.5).look()
    row = scene.snapshot().phones[0]
    assert (row.state, row.since_s, row.progress) == (S.UPLOADING, 4.5, 0.5)
    assert row.bytes_per_s == 500


def test_rest_of_an_update_that_is_not_wanted_is_no_upload_of_this_round(play: Play) -> None:
    play.come(0)
    scene = play.at(0.0)
    scene.round_opened(1, 0, frozenset({0}))
    scene.upload_advanced(0, 1, 100, 1000)
    scene.cancelled(0, 1)
    scene.round_opened(2, 0, frozenset({0}))
    scene.download_began(0, 2)
    scene.download_ended(0, 2)
    play.carry(2, 0, up=500)
    play.at(1.0).look()
    assert states(play) == [S.UPLOADING], "what it is cannot be told before its frame is whole"
    play.ledger.entry(2, 0, "uplink").wasted += 500
    play.at(2.0).look()
    assert states(play) == [S.TRAINING]
    play.carry(2, 0, up=300)
    play.at(3.0).look()
    assert states(play) == [S.UPLOADING]


def test_goodput_counts_from_where_a_resumed_upload_goes_on(play: Play) -> None:
    play.come(0)
    scene = play.at(0.0)
    scene.round_opened(1, 0, frozenset({0}))
    play.at(10.0).upload_advanced(0, 1, 800, 1000)
    play.carry(1, 0, up=100)
    play.at(11.0).look()
    row = scene.snapshot().phones[0]
    assert (row.progress, row.bytes_per_s) == (0.9, 100)


def test_lost_and_late_phones_are_told_apart(play: Play) -> None:
    for shard in range(2):
        play.come(shard)
    scene = play.at(0.0)
    scene.round_opened(1, 0, frozenset({0, 1}))
    scene.phone_left(0, "phone-0", 1)
    for shard in range(2):
        scene.cancelled(shard, 1)
    assert states(play) == [S.DROPPED, S.LATE]
    play.at(7.0).round_opened(2, 0, frozenset({0, 1}))
    assert states(play) == [S.DROPPED, S.WAITING]
    timeline = scene.snapshot().timeline
    assert timeline is not None and timeline.lanes[0] == [(0.0, S.DROPPED)]


def test_phones_that_rest_are_away_and_did_not_drop(play: Play) -> None:
    for shard in range(3):
        play.come(shard)
    scene = play.at(0.0)
    scene.round_opened(1, 0, frozenset({0, 1}))
    scene.phone_rests(2, "phone-2", 2)
    assert states(play) == [S.WAITING, S.WAITING, S.AWAY]
    scene.update_accepted(0, 1, 1, 2)
    play.at(3.0).phone_rests(0, "phone-0", 1)
    # What it did is seen until the next round opens, for which it is not there.
    assert states(play)[0] is S.ACCEPTED
    timeline = scene.snapshot().timeline
    assert timeline is not None and timeline.lanes[0] == [(0.0, S.WAITING), (0.0, S.ACCEPTED)]
    play.at(5.0).round_opened(2, 0, frozenset({1, 2}))
    assert states(play) == [S.AWAY, S.WAITING, S.AWAY]
    play.at(6.0)
    play.come(2)
    assert states(play) == [S.AWAY, S.WAITING, S.WAITING]
    scene.phone_left(2, "phone-2", 1)
    assert states(play)[2] is S.DROPPED


def test_phones_that_leave_a_finished_run_did_not_drop(play: Play) -> None:
    play.come(0)
    play.scene.ended(None)
    play.scene.phone_left(0, "phone-0", 0)
    assert states(play) == [S.AWAY]
    assert play.scene.snapshot().standing.phase == "done"


def test_changes_add_up_to_the_snapshot(play: Play) -> None:
    scene = play.at(0.0)
    first = scene.snapshot()
    rounds, phones, fleet = {}, {}, {}
    lanes: dict[int, list[tuple[float, int]]] = {}

    def take() -> None:
        change = scene.changes()
        rounds.update({row.round: row for row in change.rounds})
        phones.update({row.shard: row for row in change.phones})
        fleet.update({row.shard: row for row in change.fleet})
        if change.timeline:
            for shard, lane in change.timeline.lanes.items():
                lanes[shard] = [*lanes.get(shard, []), *lane]

    for shard in range(3):
        play.come(shard)
        take()
    play.at(1.0).round_opened(1, 0, frozenset({0, 2}))
    for shard in (0, 2):
        take()
        scene.download_began(shard, 1)
        play.carry(1, shard, down=300)
        scene.download_ended(shard, 1)
        take()
        play.at(2.0 + shard).upload_advanced(shard, 1, 0, 100)
        play.carry(1, shard, up=100)
        scene.update_accepted(shard, 1, 1, 2)
    play.close_round(1)
    take()
    whole = scene.snapshot()
    assert not first.phones and whole.phones == list(phones.values()) and whole.fleet == list(fleet.values())
    assert whole.rounds == list(rounds.values())
    assert whole.timeline is not None and whole.timeline.lanes == lanes
    assert whole.rounds[0].uplink["socket"] == 200 and whole.rounds[0].metrics == {"accuracy": 0.9}
    assert not scene.changes().phones, "nothing is told twice"


def test_resumed_run_begins_with_what_the_disk_knows(play: Play) -> None:
    play.come(0)
    play.scene.round_opened(1, 0, frozenset({0}))
    play.scene.fault("phone-0", 4003, "bad payload")
    past = msgspec.json.decode(msgspec.json.encode(play.scene.snapshot()), type=Snapshot)
    again = Play(play.folder.path)
    resumed = type(again.scene)(
        again.config, again.scene.about, again.scene._sums, again.sockets, expected_bytes=ByRound(1), past=past
    )
    snapshot = resumed.snapshot()
    assert [row.name for row in snapshot.fleet] == ["phone-0"]
    assert [row.sentence for row in snapshot.faults] == ["bad payload"]
    assert resumed.states() == {PhoneState.AWAY: 1}


def test_closed_lanes_are_kept_and_read_by_round(play: Play) -> None:
    play.come(0, link="2g", rate=30605)
    for number in (1, 2):
        play.at(float(number)).round_opened(number, 0, frozenset({0}))
        play.scene.download_began(0, number)
        play.close_round(number)
    keep(play.folder.path, play.scene.take_closed())
    assert not play.scene.take_closed()
    with open(play.folder.path / "timeline.jsonl", "ab") as file:
        file.write(b'{"timeline":{"round":3,')
    last = read(play.folder.path)
    assert isinstance(last, KeptTimeline)
    assert (last.timeline.round, last.timeline.seconds, last.links) == (2, 2.0, {0: ("2g", 30605)})
    first = read(play.folder.path, 1)
    assert first is not None and first.timeline.round == 1
    assert read(play.folder.path, 9) is None
