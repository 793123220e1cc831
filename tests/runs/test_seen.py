"""What a checkpoint has seen: the same pixels, or nearly the same picture; `tests/cli` asks whole runs."""

import io

import numpy as np
from helpers import patchwork
from PIL import Image

from medsam_helpers.data.case import Case, Cases, Dataset
from medsam_helpers.runs.seen import fingerprint, read_seen, seen_among, write_seen


def cases_of(**images):
    return Cases(list(images), lambda name: Case(name, images[name], np.ones(images[name].shape[:2], bool)))


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
