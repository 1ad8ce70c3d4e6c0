"""The four figures that everything shows, from the ledger's counts."""

from featherfed.server.storage.ledger import Traffic
from featherfed.server.storage.spent import Spent, running

UP = Traffic(theory=1, payload=20, message=30, socket=40, handshake=5, resent=2, wasted=3)
DOWN = Traffic(theory=1, payload=600, message=700, socket=800, handshake=50, resent=4, wasted=6)


def test_sum_is_of_both_sockets_and_handshakes_are_beside_it() -> None:
    spent = Spent.of(UP, DOWN)
    assert spent == Spent(up=40, down=800, handshakes=55)
    assert spent.both == 840
    assert Spent.in_row({"uplink": UP.as_dict(), "downlink": DOWN.as_dict()}) == spent


def test_rounds_add_up_from_the_first() -> None:
    rounds = [Spent(1, 10, 100), Spent(), Spent(2, 20, 0)]
    assert list(running(rounds)) == [Spent(1, 10, 100), Spent(1, 10, 100), Spent(3, 30, 100)]
    assert sum(rounds, Spent()) == Spent(3, 30, 100)


def test_people_are_told_all_four() -> None:
    spent = Spent(8_800, 380_000, 38_900)
    assert str(spent) == "8.8 kB up + 380 kB down = 389 kB both ways; 38.9 kB of handshakes beside them"
    assert spent.sizes() == {"up": "8.8 kB", "down": "380 kB", "both": "389 kB", "handshakes": "38.9 kB"}
