"""Images for the demo: folders with and without masks, and the Python that reads them again."""

import numpy as np
import pytest

from medsam_helpers.errors import ConfigError, DataError
from medsam_helpers.phantoms.dataset import phantom_dataset, save_folder
from medsam_helpers.widgets.images import picture_source


def test_folders_with_masks_give_truth_and_folders_of_images_do_not(tmp_path):
    save_folder(phantom_dataset(n_train=4, n_dev=0, n_val=2), tmp_path / "set", show_progress=False)
    of_set, plain = picture_source(tmp_path / "set"), picture_source(tmp_path / "set" / "images")
    assert of_set.names == ["endoscopy-val-0000", "endoscopy-val-0001"]
    assert len(plain.names) == 6
    pictures = [source.load(source.names[0]) for source in (of_set, plain)]
    assert [picture.truth is None for picture in pictures] == [False, True]
    for picture in pictures:
        names = {}
        exec(picture.code, names)
        assert np.array_equal(names["image"], picture.image)


def test_a_source_without_images_is_named(tmp_path):
    with pytest.raises(DataError, match="no file"):
        picture_source(tmp_path)
    with pytest.raises(ConfigError, match="unknown"):
        picture_source("phantoms")
