from featherfed.nearest import nearest


def test_near_name_is_suggested_and_a_far_one_gets_the_list() -> None:
    assert nearest("lits", ["mlp", "lite"]) == "; did you mean 'lite'?"
    assert nearest("resnet", ["mlp", "lite"]) == "; known are lite, mlp"
