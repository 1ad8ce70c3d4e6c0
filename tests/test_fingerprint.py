import pytest

from featherfed.codec.layout import Layout, Tensor
from featherfed.fingerprint import Fingerprint

FIXED = ((Tensor("body", (2,)), b"12345678"),)
MINE = Fingerprint(Layout((Tensor("a", (2, 3)), Tensor("b", (3,)))), FIXED)


def test_rows_make_it_again() -> None:
    again = Fingerprint.of_rows(MINE.rows())
    assert again == MINE and again.digest == MINE.digest


@pytest.mark.parametrize(
    ("theirs", "words"),
    [
        (Layout((Tensor("a", (2, 3)), Tensor("b", (4,)))), "tensor 'b' has shape 3 here and 4 at the server"),
        (Layout((Tensor("a", (2, 3)),)), "this model has a tensor 'b' of shape 3, and the server's has not"),
        (Layout((*MINE.layout.tensors, Tensor("c", ()))), "has a tensor 'c' of shape one number, and this one has not"),
        (Layout(MINE.layout.tensors[::-1]), "tensor 0 is 'a' here and 'b' at the server: their order differs"),
    ],
)
def test_difference_names_the_tensor(theirs: Layout, words: str) -> None:
    other = Fingerprint(theirs, FIXED)
    assert other.digest != MINE.digest
    assert words in str(MINE.difference(other))


def test_difference_in_what_is_frozen_names_it_too() -> None:
    other = Fingerprint(MINE.layout, ((Tensor("body", (2,)), b"87654321"),))
    assert other.digest != MINE.digest
    assert "tensor 'body' is not learned, and must be the same on both ends" in str(MINE.difference(other))
    assert MINE.difference(MINE) is None
