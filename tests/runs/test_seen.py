"""What a checkpoint has seen: the same pixels, nearly the same picture, and what its start had seen."""

import io

import numpy as np
import pytest
from helpers import draw_discs, patchwork
from PIL import Image

from medsam_helpers.data.case import Case, Cases, Dataset
from medsam_helpers.errors import CheckpointError
from medsam_helpers.runs.seen import fingerprint, read_seen, seen_among, write_seen

DISCS = draw_discs(8)
DATA = Dataset("d", DISCS[:3], DISCS[3:5], DISCS[5:], "", "")


def cases_of(**images):
    return Cases(list(images), lambda name: Case(name, images[name], np.ones(images[name].shape[:2], bool)))


def test_train_and_dev_are_seen_and_val_is_not_and_a_start_hands_down_what_it_saw(tmp_path):
    write_seen(tmp_path / "first", DATA)
    assert seen_among(DISCS, read_seen(tmp_path / "first")) == DISCS.names[:5]
    others = draw_discs(4, seed=7)
    write_seen(tmp_path / "second", Dataset("e", others[:2], others[2:], DISCS[5:], "", ""), tmp_path / "first")
    assert seen_among(DISCS, read_seen(tmp_path / "second")) == DISCS.names[:5]
    assert len(read_seen(tmp_path / "second")) == 9
    (tmp_path / "first" / "seen_images.csv").write_text("nothing")
    with pytest.raises(CheckpointError, match="first does not say which images it was trained on"):
        write_seen(tmp_path / "third", DATA, tmp_path / "first")


def test_a_picture_saved_again_is_the_same_and_one_flat_colour_is_like_nothing(tmp_path):
    image, memory = patchwork(1, 96, 128), io.BytesIO()
    Image.fromarray(image).resize((64, 48)).save(memory, "JPEG", quality=50)
    again = np.asarray(Image.open(memory))
    brighter, flat, black = image + np.uint8(20), np.full((50, 60, 3), 90, np.uint8), np.zeros((40, 50, 3), np.uint8)
    known = cases_of(a=image, flat=flat)
    write_seen(tmp_path, Dataset("d", known, known[:0], known[:0], "", ""))
    asked = cases_of(again=again, brighter=brighter, other=patchwork(2, 96, 128), black=black, flat=flat)
    assert seen_among(asked, read_seen(tmp_path)) == ["again", "brighter", "flat"], "flat: the same pixels"
    assert (fingerprint(black), len(fingerprint(image))) == ("", 64)
