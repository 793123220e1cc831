"""Files are whole or the old ones, never a piece; released checkpoints are found by name."""

from pathlib import Path

import numpy as np
import pytest

from medsam_helpers.files import RELEASED, atomic_write, find_checkpoint


def test_replaces_the_old_file_only_at_the_end(tmp_path):
    path = tmp_path / "deep" / "table.csv"
    with atomic_write(path) as temporary:
        temporary.write_text("old")
    with atomic_write(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert temporary.parent == path.parent
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "weights.bin"
    path.write_bytes(b"old")

    def fails():
        with atomic_write(path) as temporary:
            temporary.write_bytes(b"ha")
            raise error

    with pytest.raises(error):
        fails()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_keeps_the_suffix_for_writers_that_look_at_it(tmp_path):
    with atomic_write(tmp_path / "a.npy") as temporary:
        np.save(temporary, np.arange(3))
    assert np.load(tmp_path / "a.npy").tolist() == [0, 1, 2]


def test_permissions_are_those_of_an_ordinary_file_whatever_its_writer_set(tmp_path):
    with atomic_write(tmp_path / "atomic") as temporary:
        temporary.touch(mode=0o600)
    (tmp_path / "plain").touch()
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_released_checkpoint_is_found_by_its_name_unless_such_a_path_exists(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_checkpoint("kvasir-polyps") == RELEASED / "kvasir-polyps"
    assert find_checkpoint("no-such-name") == Path("no-such-name")
    (tmp_path / "kvasir-polyps").mkdir()
    assert find_checkpoint("kvasir-polyps") == Path("kvasir-polyps")
