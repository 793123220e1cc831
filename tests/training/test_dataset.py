"""Training examples: boxes drawn anew each epoch, targets in the mask space, views, lesions, augmentation."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import draw_discs, embedded, make_tiny_sam, mask_of

from medsam_helpers.data.views import VIEWS, view_of, views_of
from medsam_helpers.errors import ConfigError, DataError, PromptError
from medsam_helpers.evaluation.metrics import dice
from medsam_helpers.runs.embed import embed_cases
from medsam_helpers.sam.unfrozen import unfrozen
from medsam_helpers.training.dataset import PromptedCases
from medsam_helpers.training.recipes import Recipe

RECIPE = Recipe(name="test")


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory):
    """A tiny model with the embeddings of `draw_discs(4)` in its store."""
    return embedded(make_tiny_sam(), draw_discs(4), tmp_path_factory.mktemp("embeddings"))


def lone(*regions):
    """A case of the first disc's image with other lesions."""
    (disc,) = draw_discs(1)
    return replace(disc, name="lone", mask=mask_of(disc.size_hw, *regions))


def examples_of(segmenter, cases, **changes):
    return PromptedCases(cases, segmenter.store, segmenter.info.transform, RECIPE.but(**changes))


def test_a_box_moves_each_epoch_and_the_target_is_what_it_asks_for(segmenter):
    case = draw_discs(4)[2]
    examples = examples_of(segmenter, draw_discs(4))
    first = examples[2]
    assert [tuple(value.shape) for value in first.values()] == [(32, 16, 16), (1, 4), (1, 64, 64)]
    assert torch.equal(first["target"][0], segmenter.info.transform(case.size_hw).mask_to_target(case.mask))
    assert torch.equal(examples[2]["input_boxes"], first["input_boxes"])
    order = examples.order()
    assert sorted(order) == [0, 1, 2, 3]
    examples.epoch = 1
    assert not torch.equal(examples[2]["input_boxes"], first["input_boxes"])
    assert examples.order() != order


@pytest.mark.parametrize(
    ("kind", "count", "draws"), [("point", 1, 12), ("box+centre", 1, 1), ("several", 3, 12), ("box+points", 3, 12)]
)
def test_a_click_lies_where_the_model_sees_what_its_label_says(segmenter, kind, count, draws):
    examples = examples_of(segmenter, draw_discs(4))
    clicks, labels = set(), []
    for examples.epoch in range(12):
        example = examples.example(1, kind)
        assert ("input_boxes" in example) == kind.startswith("box")
        points = example["input_points"][0].tolist()
        # Two model pixels a cell: the click names the point between them.
        assert example["input_labels"][0].tolist() == [example["target"][0, int(y / 2), int(x / 2)] for x, y in points]
        assert {(x % 2, y % 2) for x, y in points} == {(0.5, 0.5)}
        assert (len(points), example["input_labels"][0, 0]) == (count, 1), "the first is on the lesion"
        clicks.add(tuple(points[0]))
        labels += example["input_labels"][0].tolist()
    assert len(clicks) == draws, "the centre stays, another pixel is drawn each time"
    assert (0 in labels) == (count > 1), "and of several some are beside it"


def test_a_mask_as_a_prompt_is_the_lesion_moved_with_its_box(segmenter):
    examples, seen = examples_of(segmenter, draw_discs(4), jitter_1024=80), set()
    for examples.epoch in range(12):
        example = examples.example(1, "mask")
        rough, box = example["input_masks"][0] > 0, example["input_boxes"][0] / 2
        assert rough.sum() == example["target"].sum()
        assert np.array_equal(around(rough.numpy()), box), "its own box, not that of the lesion"
        seen.add(tuple(box.tolist()))
    assert len(seen) > 6


def test_without_a_prompt_all_lesions_are_asked_for_and_an_image_without_one_is_an_example(tmp_path):
    one, other = draw_discs(2)
    two = replace(one, mask=one.mask | mask_of(one.size_hw, (2, 9, 2, 9)))
    healthy = replace(other, mask=mask_of(other.size_hw))
    segmenter = embedded(make_tiny_sam(), [two, healthy], tmp_path)
    transform = segmenter.info.transform
    examples = examples_of(segmenter, [two, healthy], prompts="none", box_mode="components")
    first, second = (examples.example(index, "none") for index in range(2))
    assert first.keys() == {"image_embeddings", "target"}
    assert torch.equal(first["target"][0].float(), transform(two.size_hw).mask_to_target(two.mask))
    assert not second["target"].any()
    with pytest.raises(PromptError, match="the mask is empty"):
        examples_of(segmenter, [two, healthy])


def around(mask):
    """(4,) the box round a mask, half-open."""
    rows, columns = np.nonzero(np.asarray(mask))
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])


@pytest.mark.parametrize("box_mode", ["components", "labels"])
def test_each_component_is_shown_with_its_own_target_and_each_label_even_where_they_touch(segmenter, box_mode):
    case, touching = lone((5, 20, 5, 20), (30, 50, 30, 55)), lone((10, 40, 10, 50))
    if box_mode == "labels":
        case = replace(touching, labels=touching.mask * (1 + (np.arange(touching.size_hw[1]) >= 30)))
    examples, seen = examples_of(segmenter, [case], jitter_1024=0, box_mode=box_mode), set()
    for examples.epoch in range(20):
        example = examples[0]
        box = tuple(example["input_boxes"][0].tolist())
        assert box == pytest.approx(2 * around(example["target"][0]), abs=2), "the target has half the model's side"
        seen.add(box)
    assert len(seen) == 2


def test_images_with_several_lesions_may_come_more_often_each_time_with_another_box(segmenter):
    one, other = draw_discs(2)
    # A second lesion, of more than a ten-thousandth of the image.
    two = replace(other, mask=other.mask | mask_of(other.size_hw, (0, 4, 0, 4)))
    examples = examples_of(segmenter, [one, two], oversampling=3)
    assert examples.digests == [one.digest, *[two.digest] * 3]
    assert len({tuple(examples[index]["input_boxes"][0].tolist()) for index in range(1, 4)}) == 3
    assert all(torch.equal(examples[1]["target"], examples[index]["target"]) for index in (2, 3))


def test_views_show_each_case_in_every_view_with_its_own_embedding_and_target(segmenter):
    cases, views = draw_discs(2), tuple(VIEWS)
    with pytest.raises(DataError, match="mirrored: no embedding of this image"):
        examples_of(segmenter, cases, views=views)
    embed_cases(segmenter, views_of(cases, views), show_progress=False)
    examples = examples_of(segmenter, cases, jitter_1024=0, views=views)
    shown = [[view_of(case, view) for view in views] for case in cases]
    seen = set()
    for examples.epoch in range(80):
        for index in range(len(cases)):
            example = examples[index]
            features = example["image_embeddings"]
            (case,) = (c for c in shown[index] if torch.equal(segmenter.store[c.image_digest].float(), features))
            assert torch.equal(example["target"][0], segmenter.info.transform(case.size_hw).mask_to_target(case.mask))
            seen.add(case.name)
    assert len(seen) == len(views) * len(cases)


def test_the_augmentation_here_needs_pixels_and_an_own_one_may_change_embeddings(segmenter):
    with pytest.raises(ConfigError, match="augment changes pixels, and this model is trained on cached embeddings"):
        examples_of(segmenter, draw_discs(2), augment=True)

    def mirrored(features, target, rng):
        return features.flip(-1), target.flip(-1)

    plain = examples_of(segmenter, draw_discs(2), jitter_1024=0)[1]
    example = examples_of(segmenter, draw_discs(2), jitter_1024=0, augment=mirrored)[1]
    assert torch.equal(example["image_embeddings"], plain["image_embeddings"].flip(-1))
    box = 2 * around(plain["target"][0].flip(-1))
    assert example["input_boxes"][0].tolist() == box.tolist(), "in the model space, 128 wide; the target has 64"


def test_pixels_that_count_nowhere_are_in_no_target_and_give_no_gradient(segmenter):
    disc = draw_discs(1)[0]
    ignored = np.zeros_like(disc.mask)
    ignored[: len(ignored) // 2] = True
    cases = [replace(disc, mask=disc.mask & ~ignored, ignored=ignored), draw_discs(2)[1]]
    example, plain = examples_of(segmenter, cases)[0], examples_of(segmenter, cases)[1]
    nowhere = segmenter.info.transform(disc.size_hw).mask_to_target(ignored).bool()
    assert torch.equal(example["ignored"][0].bool(), nowhere)
    assert not (example["target"][0].bool() & nowhere).any()
    assert not plain["ignored"].any(), "every example of the batch has it"
    assert "ignored" not in examples_of(segmenter, draw_discs(2))[0]


def test_a_lesion_that_vanishes_on_the_grid_is_left_out_by_name_and_stays_on_a_finer_one(segmenter):
    cases = [lone((20, 21, 20, 21)), draw_discs(2)[1]]
    with pytest.warns(UserWarning, match=r"lesions vanish on the loss's grid: lone; .*--loss-size"):
        assert len(examples_of(segmenter, cases, loss_size=32)) == 1
    assert len(examples_of(segmenter, cases, loss_size=128)) == 2


def test_a_box_that_misses_its_lesion_is_drawn_again(segmenter):
    examples = examples_of(segmenter, [lone((20, 23, 20, 23))], jitter_1024=100)
    for examples.epoch in range(50):
        example = examples[0]
        x0, y0, x1, y1 = (example["input_boxes"][0] / 2).tolist()
        assert example["target"][0, int(y0) : int(np.ceil(y1)), int(x0) : int(np.ceil(x1))].any()


def test_a_picture_is_augmented_without_its_padding_and_its_target_and_box_follow(tmp_path):
    case, model = draw_discs(1)[0], unfrozen(make_tiny_sam(), {"trainable": ["mask_decoder"], "augment": True})
    segmenter = embedded(model, [case], tmp_path)

    def mirrored(pixels, lesion, rng):
        assert pixels.shape[1:] == lesion.shape == transform.resized_hw
        return pixels.flip(-1), lesion.flip(-1)

    transform = segmenter.info.transform(case.size_hw)
    example = examples_of(segmenter, [case], jitter_1024=0, augment=mirrored)[0]
    height, width = transform.resized_hw
    stored = segmenter.store[case.image_digest].float()
    assert torch.equal(example["image_embeddings"][:, :height, :width], stored[:, :height, :width].flip(-1))
    assert example["image_embeddings"].count_nonzero() == stored.count_nonzero() < stored.numel(), "padded as before"
    expected = transform.mask_to_target(case.mask[:, ::-1].copy())
    assert dice(example["target"][0].numpy(), expected.numpy() > 0) > 0.97
    assert example["input_boxes"][0].tolist() == pytest.approx(2 * around(example["target"][0]), abs=1e-3)
