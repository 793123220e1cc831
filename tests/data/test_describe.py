"""The description of a data set: values worked out by hand, and agreement with the audit."""

import numpy as np
import pytest

from medsam_helpers.data.audit import audit
from medsam_helpers.data.case import Case, Cases, Dataset
from medsam_helpers.data.describe import describe, describe_case
from medsam_helpers.errors import PromptError


def case(name, mask, inside=200, outside=100):
    return Case(name, np.where(mask, inside, outside).astype(np.uint8)[..., None].repeat(3, axis=2), mask)


def rectangle(y0, y1, x0, x1, hw=(50, 100)):
    mask = np.zeros(hw, bool)
    mask[y0:y1, x0:x1] = True
    return mask


def dataset(train, dev=(), val=()):
    splits = [Cases([c.name for c in cases], {c.name: c for c in cases}.get) for cases in (train, dev, val)]
    return Dataset("by hand", *splits, licence="", citation="")


def test_a_case_by_hand():
    found = describe_case(case("a", rectangle(10, 20, 30, 70)))
    assert found == pytest.approx(
        {"height": 50, "width": 100, "lesion_share": 0.08, "lesions": 1}
        | {"centre_x": 0.5, "centre_y": 0.3, "lesion_gray": 200, "rim_gray": 100}
    )


def test_the_rim_is_narrow_and_leaves_out_the_recorders_black():
    mask = rectangle(10, 20, 30, 70)
    image = case("a", mask).image.copy()
    image[:, 73:] = 250  # the rim is 20 / 1024 of 100 pixels wide, one pixel: nothing out here is in it
    assert describe_case(Case("a", image, mask))["rim_gray"] == 100
    image[:, 70:] = 10
    assert describe_case(Case("a", image, mask))["rim_gray"] == 100
    image[~mask] = 0
    assert np.isnan(describe_case(Case("a", image, mask))["rim_gray"])
    with pytest.raises(PromptError, match="empty"):
        describe_case(case("a", np.zeros((20, 30), bool)))


def test_rows_agree_with_the_audit():
    two = rectangle(5, 15, 5, 15) | rectangle(30, 45, 60, 90)
    data = dataset([case("a", rectangle(0, 9, 0, 9)), case("b", two)], (), [case("c", rectangle(1, 3, 4, 8, (60, 40)))])
    table = describe(data, show_progress=False)
    assert table["lesions"].tolist() == [1, 2, 1]
    cases = audit(data, show_progress=False).cases
    assert table[cases.columns].equals(cases)
    assert describe(dataset([]), show_progress=False).empty
