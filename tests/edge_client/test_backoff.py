from featherfed.edge_client.backoff import CAP_S, FIRST_S, Backoff


def test_waits_are_uniform_below_a_cap_that_doubles() -> None:
    waits = []
    for seed in range(400):
        backoff = Backoff(str(seed))
        waits.append([backoff.next_s() for _ in range(12)])
    for failure, column in enumerate(zip(*waits, strict=True)):
        most_s = min(CAP_S, FIRST_S * 2**failure)
        assert max(column) <= most_s
        # The mean of 400 uniform draws: most/2, σ = most/√(12·400); five σ.
        assert abs(sum(column) / 400 - most_s / 2) < 5 * most_s / (12 * 400) ** 0.5


def test_success_begins_again_and_endless_failure_does_not_overflow() -> None:
    backoff = Backoff("0")
    assert all(backoff.next_s() <= CAP_S for _ in range(5000))
    backoff.reset()
    assert backoff.next_s() <= FIRST_S


def test_two_phones_do_not_come_back_together() -> None:
    first, second = Backoff("phone-1"), Backoff("phone-2")
    assert [first.next_s() for _ in range(3)] != [second.next_s() for _ in range(3)]
