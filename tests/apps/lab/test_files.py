"""Outputs are written whole or not at all."""

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
