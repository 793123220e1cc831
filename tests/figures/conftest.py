"""A case to draw; and no figure leaves anything with pyplot, which would show it a second time in a notebook."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from medsam_helpers.data.case import Case


@pytest.fixture
def square():
    """A gray case of 60 x 100 with a lesion of 20 x 40."""
    mask = np.zeros((60, 100), bool)
    mask[20:40, 40:80] = True
    return Case("square", np.full((60, 100, 3), 90, np.uint8), mask)


@pytest.fixture(autouse=True)
def nothing_is_left_with_pyplot():
    yield
    assert plt.get_fignums() == []
