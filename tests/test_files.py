"""Files are whole or the old ones, never a piece."""

import numpy as np
import pytest

from medsam_helpers.errors import ConfigError
from medsam_helpers.files import atomic_write, new_folder, one_writer


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


def test_a_full_disk_is_told_with_the_file_and_what_is_left(tmp_path):
    path, said = tmp_path / "weights.bin", "No space left on device"
    for error in (OSError(28, said), RuntimeError(f"I/O error: {said} (os error 28)")):  # as safetensors says it
        with pytest.raises(OSError, match=r"no room for .*weights.bin: \d+ MB are left"), atomic_write(path):
            raise error


@one_writer
def write(output, text, meanwhile=lambda: None):
    meanwhile()
    output.mkdir(exist_ok=True)
    (output / "text").write_text(text)


def test_one_call_at_a_time_writes_to_a_folder_and_what_a_killed_one_left_is_removed(tmp_path):
    place = tmp_path / "run"
    place.mkdir()
    (place / ".state.1a2b3c4d.part.safetensors").touch()
    (place / ".hidden").touch()

    def other():
        with pytest.raises(ConfigError, match="run: another process writes there"):
            write(place, "second")

    write(place, "first", meanwhile=other)
    assert sorted(path.name for path in place.iterdir()) == [".hidden", "text"]
    assert (place / "text").read_text() == "first"
    write(output=place, text="third")
    assert [path.name for path in tmp_path.iterdir()] == ["run"], "no lock stays"


def test_a_new_folder_is_whole_or_not_there(tmp_path):
    place = tmp_path / "new"
    (tmp_path / ".new.part").mkdir()
    (tmp_path / ".new.part" / "half").touch()  # of a killed process
    with pytest.raises(KeyboardInterrupt), new_folder(place) as folder:  # noqa: PT012
        (folder / "one").touch()
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    with new_folder(place) as folder:
        (folder / "one").touch()
        assert not place.exists()
    assert [path.name for path in place.iterdir()] == ["one"]
    with pytest.raises(ConfigError, match="new is not an empty folder"), new_folder(place):
        pass
