"""Outputs are written whole or not at all."""

import errno
import os

import pytest

from apps.lab.files import atomic_path, write_atomic


def test_text_and_bytes_arrive_as_they_are(tmp_path):
    assert write_atomic(tmp_path / "deep" / "a.txt", "é\r\n").read_bytes() == "é\r\n".encode()
    assert write_atomic(tmp_path / "b", b"\0\1").read_bytes() == b"\0\1"


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    file = write_atomic(tmp_path / "a.nc", "old")

    def write_half():
        with atomic_path(file) as part:
            assert part.suffix == ".nc"
            part.write_text("half of the new")
            raise RuntimeError("disk")

    with pytest.raises(RuntimeError, match="disk"):
        write_half()
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_the_file_is_as_readable_as_any_other(tmp_path):
    (tmp_path / "usual").touch()
    with atomic_path(tmp_path / "a") as part:
        part.unlink()
        part.touch(mode=0o600)
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_the_file_is_on_the_disk_before_its_name_and_the_name_before_the_return(
    tmp_path, monkeypatch
):
    done, true_sync, true_replace = [], os.fsync, os.replace

    def sync(opened):
        done.append(("sync", os.fstat(opened).st_ino, os.fstat(opened).st_size))
        true_sync(opened)

    def replace(part, path):
        done.append(("replace", os.stat(part).st_ino, 0))
        true_replace(part, path)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", replace)
    file = write_atomic(tmp_path / "deep" / "er" / "a.txt", "12345")
    inode = file.stat().st_ino
    steps = [step[:2] for step in done]
    folders = [folder.stat().st_ino for folder in (tmp_path / "deep", tmp_path)]
    assert steps[:2] == [("sync", i) for i in folders]  # the new folders, in those above them
    assert steps[2:4] == [("sync", inode), ("replace", inode)]
    assert done[2][2] == 5, "all of it is there when it is synced"
    assert steps[4:] == [("sync", file.parent.stat().st_ino)]


def test_a_disk_that_fails_when_asked_to_keep_leaves_the_old_file(tmp_path, monkeypatch):
    file = write_atomic(tmp_path / "a", "old")

    def broken(opened):
        raise OSError(errno.EIO, "the disk")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match=f"the disk.*{file}"):  # which names the file
        write_atomic(file, "new")
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]
