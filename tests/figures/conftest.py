"""A case to draw; and no figure leaves anything with pyplot, which would show it a second time in a notebook."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from helpers import mask_of

from medsam_helpers.data.case import Case


@pytest.fixture
def square():
    """A gray case of 60 x 100 with a lesion of 20 x 40."""
    return Case("square", np.full((60, 100, 3), 90, np.uint8), mask_of((60, 100), (20, 40, 40, 80)))


@pytest.fixture(autouse=True)
def nothing_is_left_with_pyplot():
    yield
    assert plt.get_fignums() == []
