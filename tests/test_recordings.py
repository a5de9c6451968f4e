"""The reader of recordings finds our own, and refuses a folder that holds none."""

import gzip
from pathlib import Path

import pytest

from tests.recordings import OWN, files, name, read


def test_our_own_are_always_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KODNA_RECORDINGS", raising=False)
    (path,) = files("chat")
    assert path.parent == OWN
    assert name(path) == "written"
    assert any(exchange.is_chat_stream for exchange in read(path))
    assert {200, 400, 401, 429, 500} <= {exchange.status for exchange in read(path)}


def test_recordings_of_a_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    line = (OWN / "written.chat.jsonl").read_bytes().splitlines()[0]
    (tmp_path / "vendor.chat.jsonl.gz").write_bytes(gzip.compress(line))
    monkeypatch.setenv("KODNA_RECORDINGS", str(tmp_path))
    assert [name(path) for path in files("chat")] == ["written", "vendor"]
    assert read(files("chat")[1]) == read(files("chat")[0])[:1]


def test_a_folder_without_recordings_is_a_mistake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KODNA_RECORDINGS", str(tmp_path))
    with pytest.raises(AssertionError, match="no recordings"):
        files("chat")
