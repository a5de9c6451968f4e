"""Marks: what is set is in the file at once, and never finds that the disk is full."""

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from proxy import marks
from proxy.marks import Mark, Marks
from tests.processes import ROOT


def again(folder: Path) -> Marks:
    """As another process sees the file."""
    return Marks(os.open(folder / marks.NAME, os.O_RDWR))


def no_room(*_: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_it_works(tmp_path: Path) -> None:
    made = Marks.make(tmp_path)
    first, second = made.new(), made.new()
    first.set(5, 2**63)
    second.set(7, 1)
    seen = again(tmp_path)
    assert [seen.read(mark.slot) for mark in (first, second)] == [(5, 2**63), (7, 1)]
    assert first.slot != second.slot


def test_kill_9(tmp_path: Path) -> None:
    script = (
        "import os, sys; from pathlib import Path; from proxy.marks import Marks;"
        "mark = Marks.make(Path(sys.argv[1])).new();"
        "[mark.set(count, 2 * count) for count in range(1001)]; print(mark.slot, flush=True); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", script, tmp_path], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == -9
    assert again(tmp_path).read(int(done.stdout)) == (1000, 2000)


def test_a_closed_mark(tmp_path: Path) -> None:
    made = Marks.make(tmp_path)
    mark = made.new()
    mark.set(5, 6)
    slot = mark.close()
    mark.set(7, 8)
    assert made.read(slot) == (5, 6)
    assert made.new().slot != slot, "it is not free yet"
    made.free(slot)
    assert made.new().slot == slot


def test_how_requests_began(tmp_path: Path) -> None:
    made = Marks.make(tmp_path)
    first, second, third = (made.new() for _ in range(3))
    longest = b"x" * (marks.SLOT - 24)
    assert first.tell(b'{"request_id":"req_1"}')
    assert second.tell(longest)
    assert not third.tell(longest + b"x")
    for mark in (first, second, third):
        mark.set(2**64 - 1, 2**64 - 1)
    assert list(again(tmp_path).begun()) == [b'{"request_id":"req_1"}', longest]
    made.free(first.close())
    assert list(again(tmp_path).begun()) == [longest]
    assert made.new().tell(b"short")
    assert list(again(tmp_path).begun()) == [b"short", longest]


def test_a_mark_of_nobody(tmp_path: Path) -> None:
    made = Marks.make(tmp_path)
    nobody = Mark()
    nobody.set(1, 2)
    assert not nobody.tell(b"who?")
    made.free(nobody.close())
    assert made.read(0) == (0, 0)
    assert made.new().slot


def test_more_than_there_was_room_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(marks, "SLOTS", 4)
    made = Marks.make(tmp_path)
    many = [made.new() for _ in range(20)]
    assert len({mark.slot for mark in many}) == 20
    for number, mark in enumerate(many):
        mark.set(number, 100 + number)
    seen = again(tmp_path)
    assert [seen.read(mark.slot) for mark in many] == [(number, 100 + number) for number in range(20)]


def test_no_room_for_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(marks, "SLOTS", 2)
    made = Marks.make(tmp_path)
    first = made.new()
    first.set(1, 2)
    monkeypatch.setattr(marks.os, "posix_fallocate", no_room)
    second = made.new()
    second.set(3, 4)
    assert (second.slot, made.read(first.slot)) == (0, (1, 2))
    assert "no room for more marks" in caplog.text


def test_no_room_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(marks.os, "posix_fallocate", no_room)
    with pytest.raises(OSError, match="No space"):
        Marks.make(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_its_blocks_are_there_from_the_start(tmp_path: Path) -> None:
    """A hole in the file would be filled by the first write to the map, and end the process on a full disk."""
    Marks.make(tmp_path)
    found = (tmp_path / marks.NAME).stat()
    assert found.st_size == marks.SLOTS * marks.SLOT
    assert found.st_blocks * 512 >= found.st_size


def test_how_far_a_file_is_moved(tmp_path: Path) -> None:
    made, path = Marks.make(tmp_path), tmp_path / "2.jsonl"
    path.write_bytes(b"x" * 30)
    assert made.moved(2, path) == 0
    made.move(2, 10)
    assert again(tmp_path).moved(2, path) == 10
    made.move(3, 0)
    assert (again(tmp_path).moved(2, path), made.moved(4, path)) == (30, 0)


@pytest.mark.parametrize("slot", [-1, 0, marks.SLOTS, 10**9])
def test_a_slot_that_is_not_there(tmp_path: Path, slot: int) -> None:
    assert Marks.make(tmp_path).read(slot) == (0, 0)


def test_a_file_that_a_power_cut_left_empty(tmp_path: Path) -> None:
    (tmp_path / marks.NAME).touch()
    found = again(tmp_path)
    assert (found.read(1), found.moved(1, tmp_path)) == ((0, 0), 0)
