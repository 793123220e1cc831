"""`load_data` finds phantoms by name, and refuses what is none."""

import pytest

from medsam_helpers.data.loading import load_data
from medsam_helpers.errors import ConfigError


@pytest.mark.parametrize("source", ["phantom", "phantom-ultrasound"])
def test_phantoms_are_cut_to_the_limits(source):
    whole = load_data(source)
    assert (len(whole.train), len(whole.dev), len(whole.val)) == (80, 16, 64)
    cut = load_data(source, train_limit=3, dev_limit=0, val_limit=99)
    assert (cut.train.names, cut.dev.names, cut.val.names) == (whole.train.names[:3], [], whole.val.names)
    assert load_data(source, split_seed=1).train[0].digest != whole.train[0].digest == cut.train[0].digest


def test_unknown_sources_and_limits_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match="'kvasr' is unknown: use phantom, phantom-ultrasound, kvasir, breast, or a"):
        load_data("kvasr")
    with pytest.raises(ConfigError, match="val_limit must be"):
        load_data("phantom", val_limit=-1)
