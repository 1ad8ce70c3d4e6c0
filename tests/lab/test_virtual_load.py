from lab.virtual_load import echo_fleet, idle_hour


def test_a_websocket_fleet_has_the_same_events_again_byte_for_byte() -> None:
    first, again, other = (echo_fleet(100, 3, seed=seed) for seed in (1, 1, 2))
    assert (first.digest, first.events, first.emulated_s) == (again.digest, again.events, again.emulated_s)
    assert first.digest != other.digest
    # Up, down and the client's own line for each message, and handshakes.
    assert first.events > 100 * 3 * 3


def test_an_idle_hour_is_nothing_but_pings() -> None:
    hour = idle_hour(5)
    assert hour.emulated_s > 3600
    # Every 20 s a ping and a pong each way: 720 arrivals a phone, fewer on links whose own pings are rarer.
    assert 5 * 360 < hour.events < 5 * 740
