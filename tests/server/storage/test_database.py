"""Where a run's tables are, and whole runs that are kept in a real PostgreSQL."""

from pathlib import Path

import pytest

from featherfed.errors import ConfigError
from featherfed.server.storage.database import Remote, read_remote, remote_for
from featherfed.server.storage.run_folder import existing
from tests.server.peer import peer
from tests.serving import serving

URL = "postgresql+psycopg://someone@db.example/federated"


def test_every_run_gets_a_schema_of_its_own() -> None:
    first, second = remote_for(URL, "Größe 1"), remote_for(URL, "Größe 1")
    assert first.url == second.url == URL
    assert first.schema != second.schema
    assert first.schema.startswith("run_gr__e_1_")
    assert len(remote_for(URL, "x" * 200).schema) <= 63


def test_place_round_trips(tmp_path: Path) -> None:
    remote = Remote(URL, "run_a_12")
    (tmp_path / "store.toml").write_text(remote.to_toml())
    assert read_remote(tmp_path / "store.toml") == remote
    assert read_remote(tmp_path / "none.toml") is None
    (tmp_path / "store.toml").write_text("url = 1\nelse = 2")
    with pytest.raises(ConfigError, match="cannot read where the run's store is"):
        read_remote(tmp_path / "store.toml")


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("nonsense", "is not a URL like postgresql"),
        ("mysql://u@h/d", "without --store a run keeps run.sqlite"),
        ("postgresql://u:secret@h/d", "has a password"),
    ],
)
def test_url_that_cannot_be_used_is_a_sentence(url: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence) as raised:
        remote_for(url, "run")
    assert "secret" not in str(raised.value)


async def test_run_in_postgresql_goes_on_where_it_stopped_and_gives_the_model_of_one_in_sqlite(
    postgresql: str, tmp_path: Path
) -> None:
    models = []
    for name, store in (("remote", postgresql), ("local", None)):
        async with (
            serving(tmp_path, name=name, kept_in=store, phones=2, rounds=1, uplink="rotate | eden(2)") as served,
            peer(served.address) as one,
            peer(served.address) as two,
        ):
            await one.join("a", shard=0)
            await two.join("b", shard=1)
            task = await one.task()
            await two.task()
            payload = one.update(task)
            await one.upload(task.round, payload, examples=3)
            await one.receive()
            other = two.update(task)
            await two.upload(task.round, other, examples=1, upto=1000)
            await two.receive()
        async with serving(tmp_path, name=name, resume=True) as served:
            async with peer(served.address) as two:
                await two.join("b", shard=1)
                await two.upload(1, other, examples=1)
                assert await served.ended is None
            report = served.report()
        assert [(row["accepted"], row["cohort"]) for row in report["rounds"]] == [(2, 2)]
        models.append((tmp_path / name / "model.safetensors").read_bytes())
    assert models[0] == models[1]
    assert not (tmp_path / "remote" / "run.sqlite").exists()
    assert isinstance(existing(tmp_path / "remote")[0].database, Remote)
