"""No figure leaves anything with pyplot, which would show it a second time in a notebook."""

import matplotlib.pyplot as plt
import pytest


@pytest.fixture(autouse=True)
def nothing_is_left_with_pyplot():
    yield
    assert plt.get_fignums() == []
