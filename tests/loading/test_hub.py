"""A hub that does not answer is asked once; what was loaded from it before is read without it."""

import shutil
import time
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest

pytest.importorskip("datasets")

import datasets

from layerfreq.loading.hub import SECONDS, cache_alone, missing
from layerfreq.loading.hub_tables import open_table
from tests.helpers.refusals import Code, refuses


@pytest.fixture
def asked(monkeypatch):
    """Let no hub answer, and count how often one is asked; nothing waits in between."""
    import huggingface_hub

    found = []

    def fail(_, name, timeout=None, **__):
        found.append((name, timeout))
        raise ConnectionError("no network")

    def wait(seconds):
        raise AssertionError(f"waits {seconds} s for the hub")

    for what in ("model_info", "dataset_info", "hf_hub_download"):
        monkeypatch.setattr(huggingface_hub.HfApi, what, fail)
    monkeypatch.setattr(time, "sleep", wait)
    return found


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path / "cache"


def test_a_table_of_an_unreachable_hub_is_refused_after_one_question(asked, cache):
    with refuses("data", Code.MISSING):
        open_table("some/table", 3)
    assert asked == [("some/table", SECONDS)]
    assert not datasets.config.HF_HUB_OFFLINE


def test_a_table_that_was_loaded_before_needs_no_hub(asked, cache, tmp_path):
    (tmp_path / "table").mkdir()
    pd.DataFrame({"label": [3, 1, 2]}).to_parquet(tmp_path / "table" / "train-00000-of-00001.parquet")
    datasets.load_dataset(str(tmp_path / "table"), split="train")  # as the hub's would be kept, but for its name
    (made,) = {file.parent for file in Path(cache).rglob("*.arrow")}
    kept = cache / "some___table" / "default" / "0.0.0" / made.name
    shutil.copytree(made, kept)
    for file in kept.glob("*.arrow"):
        file.rename(kept / "table-train.arrow")
    info = kept / "dataset_info.json"
    info.write_text(info.read_text().replace('"parquet"', '"table"'))
    assert open_table("some/table", 2)["label"][:] == [3, 1]


def test_what_the_hub_refuses_is_not_a_missing_connection(monkeypatch):
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    def refuse(*_, **__):
        raise RepositoryNotFoundError.__new__(RepositoryNotFoundError)

    monkeypatch.setattr(HfApi, "model_info", refuse)
    found = missing("model", "some/model", "pass another")
    assert (found.argument, found.code) == ("model", Code.MISSING)
    assert "open to you" in str(found)
    monkeypatch.setattr(HfApi, "model_info", lambda *_, **__: None)
    assert missing("model", "some/model", "pass another") is None


def test_a_name_that_no_hub_takes_is_refused_without_asking():
    with refuses("model", Code.VALUE):
        raise missing("model", "no@name", "pass another")


def test_the_cache_alone_is_for_a_while(monkeypatch):
    for before in (False, True):
        monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", before)
        with suppress(RuntimeError), cache_alone(datasets):
            assert datasets.config.HF_HUB_OFFLINE
            raise RuntimeError
        assert datasets.config.HF_HUB_OFFLINE is before
