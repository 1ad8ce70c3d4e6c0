"""What phones have paid and may pay."""

import pytest

from featherfed.privacy.accounting import Price, epsilon
from featherfed.privacy.budget import Account, Budget, Spent

pytest.importorskip("dp_accounting", reason="needs dp-accounting: pip install 'featherfed[dp]'")

BUDGET = Budget(rho=0.5, delta=1e-5, participations=3)


def test_phones_pay_for_the_rounds_that_they_were_in() -> None:
    account = Account().charged([0, 1], Price(0.5)).charged([1, 2], Price(0.5))
    assert [account.of(shard) for shard in range(4)] == [Spent(1, 0.5), Spent(2, 1.0), Spent(1, 0.5), Spent()]
    assert account.most == Price(1.0) and BUDGET.epsilon(account) == epsilon(1.0, 1e-5)


def test_account_of_nobody_is_nothing() -> None:
    assert Account().most == Price(0.0) and BUDGET.epsilon(Account()) == 0


def test_no_phone_is_in_more_rounds_than_its_participations() -> None:
    account = Account()
    for rounds in range(3):
        assert BUDGET.left(account, [7, 8]) == [7, 8], rounds
        account = account.charged([7], Price(0.5))
    assert BUDGET.left(account, [7, 8]) == [8]


def test_no_phone_pays_beyond_the_target() -> None:
    budget = Budget(rho=0.5, delta=1e-5, participations=100, target=7.2)
    account = Account().charged([0], Price(0.5))
    assert budget.allows(account, 0), "two rounds cost 7.08"
    account = account.charged([0], Price(0.5))
    assert not budget.allows(account, 0), "three would cost 9.01"
    # What was paid at another price, before the run was prolonged, counts as it was.
    assert not budget.allows(Account().charged([0], Price(0.9)), 0)


def test_target_that_was_solved_for_is_reached_by_all_its_rounds() -> None:
    """Sums of floats may not take the last one away."""
    from featherfed.privacy.accounting import rho_within

    for times in range(1, 40):
        budget = Budget(rho_within(8.0, 1e-5) / times, 1e-5, times, 8.0)
        account = Account()
        for _ in range(times):
            assert budget.allows(account, 0)
            account = account.charged([0], Price(budget.rho))
        assert not budget.allows(account, 0)
        assert budget.epsilon(account) == pytest.approx(8.0, rel=1e-6)


def test_sentence_says_what_was_spent_and_what_another_round_would_make_it() -> None:
    account = Account().charged([0], Price(0.5)).charged([0], Price(0.5))
    told = Budget(0.5, 1e-5, 100, 8.0).over(account, 20)
    assert (
        told
        == "the privacy budget is spent: ε 7.08 of --target-epsilon 8 after round 20; another would make it 9.01, and"
        " needs a higher target_epsilon in config.toml, which promises phones less"
    )
    told = Budget(0.5, 1e-5, 2).over(account, 20)
    assert told == (
        "the privacy budget is spent: ε 7.08 after round 20, and no phone is in more than 2 rounds (--participations);"
        " another would make it 9.01, and needs a higher participations in config.toml, which promises phones less"
    )
