from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from tempfile import NamedTemporaryFile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from featherfed.codec.pipeline import Pipeline
from featherfed.errors import CodecError, ConfigError
from featherfed.randomness import RoundKey
from featherfed.server.config import RunConfig
from featherfed.server.measures import figures
from featherfed.server.model.aggregation import Aggregator
from featherfed.server.model.round_sum import Received
from tests.layouts import LAYOUTS

CONFIG = RunConfig(
    problem="digits/lite", phones=6, cohort=6, rounds=4, eval_every=2, uplink="float32", downlink="float32"
)
LAYOUT = LAYOUTS["lite"]
WEIGHTS = (100, 3, 57, 1, 240, 12)


def payloads(config: RunConfig, round_number: int) -> list[bytes]:
    """Return a payload of each phone: the shard's own noise, encoded as the run says."""
    pipeline, result = Pipeline.parse(config.uplink), []
    for shard in range(config.phones):
        key = RoundKey(config.seed, round_number, shard)
        noise = np.random.default_rng(shard).normal(0, 0.01, pipeline.space(LAYOUT, key).size).astype(np.float32)
        result.append(pipeline.encode(noise, LAYOUT, key).payload)
    return result


def file_of(aggregator: Aggregator) -> str:
    """Return the digest of what is saved of a run."""
    with NamedTemporaryFile() as file:
        aggregator.save(Path(file.name))
        return blake2b(Path(file.name).read_bytes()).hexdigest()


def after_round(aggregator: Aggregator, config: RunConfig, number: int, order: list[int] | range) -> str:
    aggregator.sum.open(number)
    updates = payloads(config, number)
    for shard in order:
        aggregator.sum.add(number, shard, updates[shard], WEIGHTS[shard])
    aggregator.close(number)
    return file_of(aggregator)


@pytest.fixture(scope="module", params=["float32", "rotate | eden(1)", "subsample(1/4) | rotate | quantize(2)"])
def config(request: pytest.FixtureRequest) -> RunConfig:
    return replace(CONFIG, uplink=request.param, eval_every=100, rounds=100)


@pytest.fixture(scope="module")
def in_order(config: RunConfig) -> str:
    return after_round(Aggregator(config, None), config, 1, range(6))


@settings(max_examples=8, deadline=None)
@given(order=st.permutations(range(6)))
def test_order_of_arrival_never_changes_a_bit(config: RunConfig, in_order: str, order: list[int]) -> None:
    assert after_round(Aggregator(config, None), config, 1, order) == in_order


def test_model_steps_by_the_mean_weighted_by_examples() -> None:
    aggregator = Aggregator(CONFIG, None)
    before = aggregator.versions.view.copy()
    after_round(aggregator, CONFIG, 1, range(6))
    updates = [np.frombuffer(payload, "<f4").astype(np.float64) for payload in payloads(CONFIG, 1)]
    mean = sum(weight * update for weight, update in zip(WEIGHTS, updates, strict=True)) / sum(WEIGHTS)
    assert np.allclose(aggregator.versions.view, before + mean, atol=1e-6)
    assert not np.allclose(aggregator.versions.view, before + np.mean(updates, axis=0), atol=1e-4)


def test_update_that_does_not_decode_leaves_the_sum_alone() -> None:
    clean = after_round(Aggregator(CONFIG, None), CONFIG, 1, range(6))
    aggregator = Aggregator(CONFIG, None)
    aggregator.sum.open(1)
    good = payloads(CONFIG, 1)
    nan = np.full(LAYOUT.size, np.nan, "<f4").tobytes()
    infinite = good[0][:-4] + np.array([np.inf], "<f4").tobytes()
    for bad in (b"", good[0][:-1], good[0] + b"\0", nan, infinite):
        with pytest.raises(CodecError):
            aggregator.sum.add(1, 0, bad, 10)
    for shard in range(6):
        aggregator.sum.add(1, shard, good[shard], WEIGHTS[shard])
    aggregator.close(1)
    assert file_of(aggregator) == clean


def test_update_of_a_round_that_is_not_open_is_refused() -> None:
    with pytest.raises(CodecError, match="round 1 is not open"):
        Aggregator(CONFIG, None).sum.add(1, 0, b"", 1)


def test_evaluation_is_where_it_is_due_and_after_the_last_round() -> None:
    config = replace(CONFIG, rounds=3)
    aggregator = Aggregator(config, None)
    due, best = [], []
    for number in (1, 2, 3):
        aggregator.sum.open(number)
        closing = aggregator.close(number)
        due.append(closing.due)
        evaluation = aggregator.evaluate()
        assert evaluation is not None
        best.append(aggregator.best_so_far(figures(evaluation.loss, evaluation.metrics)))
        assert closing.version == number
    assert due == [False, True, True]
    # Nothing was added, so nothing changed: an equal accuracy is no better one.
    assert best == [True, False, False]


def test_mean_of_the_models_is_what_is_kept_and_phones_get_the_newest(tmp_path: Path) -> None:
    plain, averaging = Aggregator(CONFIG, None), Aggregator(replace(CONFIG, server_average=0.5), None)
    models = []
    for number in (1, 2, 3):
        after_round(plain, CONFIG, number, range(6))
        after_round(averaging, CONFIG, number, range(6))
        models.append(plain.versions.view.astype(np.float64))
        assert averaging.versions.view.tobytes() == plain.versions.view.tobytes()
    averaging.save(tmp_path / "kept")
    kept = load_file(tmp_path / "kept")
    mean = np.concatenate([kept[f"model.{tensor.name}"].ravel() for tensor in averaging.layout.tensors])
    assert np.allclose(mean, (models[0] + 2 * models[1] + 4 * models[2]) / 7, atol=1e-6)
    assert averaging.evaluate().loss != plain.evaluate().loss


@pytest.mark.parametrize(
    ("downlink", "leftover"),
    [("rotate | eden(4)", "keep"), ("lattice(1)", "keep"), ("lattice(1)", "0.5"), ("fresh | eden-1bit", "drop")],
)
@pytest.mark.parametrize("memory", [0.0, 0.85])
@pytest.mark.parametrize("optimizer", ["fedavg", "fedavgm", "fedadam", "fedyogi"])
def test_restored_run_goes_on_to_the_same_bits(
    optimizer: str, memory: float, downlink: str, leftover: str, tmp_path: Path
) -> None:
    config = replace(
        CONFIG, server_optimizer=optimizer, server_average=memory, downlink=downlink, leftover=leftover, server_lr=0.5
    )
    whole = Aggregator(config, None)
    path = tmp_path / "model.safetensors"
    after_round(whole, config, 1, range(6))
    whole.save(path)
    resumed = Aggregator(config, None)
    resumed.restore(path, whole.versions.version)
    assert after_round(resumed, config, 2, range(6)) == after_round(whole, config, 2, range(6))
    assert resumed.versions.parcel(0) == whole.versions.parcel(0)


@pytest.mark.parametrize("content", [None, b"", b"no safetensors at all"])
def test_model_that_can_not_be_read_is_a_sentence(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "model-3.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match="cannot read the model"):
        Aggregator(CONFIG, None).restore(path, 3)


def test_model_of_an_earlier_release_s_default_is_named_with_the_way_out(tmp_path: Path) -> None:
    # `mnist` was `mnist/lite` once; a problem's own file may have been edited, too.
    lite = Aggregator(replace(CONFIG, downlink="lattice(1)"), None)
    path = tmp_path / "model-0.safetensors"
    lite.save(path)
    tiny = Aggregator(replace(CONFIG, problem="digits/tiny", downlink="lattice(1)"), None)
    with pytest.raises(ConfigError) as refused:
        tiny.restore(path, 0)
    words = str(refused.value)
    assert words.startswith(f"{path} has another model than the problem now: tensor ")
    assert words.endswith("; say problem = 'digits/lite' in config.toml to go on, or begin a new run")


def test_seed_draws_the_first_model() -> None:
    first, again, other = (file_of(Aggregator(replace(CONFIG, seed=seed), None)) for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_rule_is_asked_once_in_a_batch_for_each_number_of_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the sum has the weights of all the same."""
    asked: list[int] = []

    def weight(rule: object, examples: int) -> int:
        asked.append(examples)
        return examples

    aggregator = Aggregator(CONFIG, None)
    monkeypatch.setattr(type(aggregator.sum._aggregate), "weight", weight)
    aggregator.sum.open(1)
    updates = [Received(1, shard, payload, 3 if shard == 2 else 1) for shard, payload in enumerate(payloads(CONFIG, 1))]
    assert aggregator.sum.add_all(updates) == [None] * 6
    assert sorted(asked) == [1, 3]
    assert aggregator.sum.take_updates().weights == [8]
