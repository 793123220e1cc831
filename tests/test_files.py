"""Files are whole or the old ones, never a piece; released checkpoints are found by name."""

from pathlib import Path

import numpy as np
import pytest

from medsam_helpers.files import RELEASED, atomic_write, find_checkpoint


def test_a_file_is_replaced_at_the_end_with_ordinary_permissions(tmp_path):
    path = tmp_path / "deep" / "array.npy"
    for number in (1, 2):
        with atomic_write(path) as temporary:
            temporary.touch(mode=0o600)
            np.save(temporary, number)  # numpy appends a suffix where it misses its own
            assert number == 1 or np.load(path) == 1
    assert np.load(path) == 2
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert list(path.parent.iterdir()) == [path]


def test_an_interrupt_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "weights.bin"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), atomic_write(path) as temporary:  # noqa: PT012
        temporary.write_bytes(b"ha")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_released_checkpoint_is_found_by_its_name_unless_such_a_path_exists(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_checkpoint("kvasir-polyps") == RELEASED / "kvasir-polyps"
    assert find_checkpoint("no-such-name") == Path("no-such-name")
    (tmp_path / "kvasir-polyps").mkdir()
    assert find_checkpoint("kvasir-polyps") == Path("kvasir-polyps")
