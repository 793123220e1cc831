"""The description of a data set: values worked out by hand, and agreement with the audit."""

import numpy as np
import pytest

from medsam_helpers.data.audit import audit
from medsam_helpers.data.case import Case, Cases, Dataset
from medsam_helpers.errors import PromptError
from medsam_helpers.figures.data import describe, describe_case


def rectangle(y0, y1, x0, x1):
    """A mask (50, 100)."""
    mask = np.zeros((50, 100), bool)
    mask[y0:y1, x0:x1] = True
    return mask


def case(name, mask):
    return Case(name, np.where(mask, 200, 100).astype(np.uint8)[..., None].repeat(3, axis=2), mask)


def test_a_case_by_hand():
    assert describe_case(case("a", rectangle(10, 20, 30, 70))) == pytest.approx(
        {"height": 50, "width": 100, "lesion_share": 0.08, "lesions": 1}
        | {"centre_x": 0.5, "centre_y": 0.3, "lesion_gray": 200, "rim_gray": 100}
    )
    with pytest.raises(PromptError, match="empty"):
        describe_case(case("a", rectangle(0, 0, 0, 0)))


def test_the_rim_is_narrow_and_leaves_out_the_recorders_black():
    mask = rectangle(10, 20, 30, 70)
    image = case("a", mask).image.copy()
    image[:, 73:] = 250  # the rim is 20 / 1024 of 100 pixels wide, one pixel: nothing out here is in it
    assert describe_case(Case("a", image, mask))["rim_gray"] == 100
    image[:, 70:] = 10
    assert describe_case(Case("a", image, mask))["rim_gray"] == 100
    image[~mask] = 0
    assert np.isnan(describe_case(Case("a", image, mask))["rim_gray"])


def test_rows_agree_with_the_audit():
    masks = {"a": rectangle(0, 9, 0, 9), "b": rectangle(5, 15, 5, 15) | rectangle(30, 45, 60, 90)}
    cases = Cases(list(masks), lambda name: case(name, masks[name]))
    data = Dataset("by hand", cases[:1], cases[:0], cases[1:], licence="", citation="")
    table = describe(data, show_progress=False)
    assert table["lesions"].tolist() == [1, 2]
    audited = audit(data, show_progress=False).cases
    assert table[audited.columns].equals(audited)
