"""Phantoms: deterministic by seed, of the promised sizes and areas, and lesions that are really there."""

from functools import cache

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from medsam_helpers.data.case import Case, Cases, Dataset
from medsam_helpers.data.folder import folder_dataset
from medsam_helpers.errors import ConfigError, DataError
from medsam_helpers.phantoms import dataset as phantoms
from medsam_helpers.phantoms.dataset import KINDS, draw_phantom, phantom_dataset, save_folder
from medsam_helpers.phantoms.texture import Canvas, ellipse_distance, lobed_distance, smooth_union, soft_step

DRAWN = 40


@cache
def drawn(kind):
    """The same forty phantoms of a kind for all tests that only look."""
    return [draw_phantom(kind, np.random.default_rng([7, index])) for index in range(DRAWN)]


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def many(kind):
    return drawn(kind)


class TestDrawPhantom:
    def test_types_and_sizes(self, many):
        for image, mask in many:
            assert image.dtype == np.uint8
            assert mask.dtype == np.bool_
            assert image.shape == (*mask.shape, 3)
            height, width = mask.shape
            assert height < width
            assert 360 <= width <= 620
        assert len({mask.shape for _, mask in many}) > DRAWN / 2

    def test_lesions_cover_one_percent_to_half_and_vary(self, many):
        areas = np.array([mask.mean() for _, mask in many])
        assert areas.min() >= 0.01
        assert areas.max() <= 0.5
        assert areas.max() > 5 * areas.min()

    def test_same_state_same_picture_and_another_state_another(self, kind, many):
        image, mask = draw_phantom(kind, np.random.default_rng([7, 0]))
        assert np.array_equal(image, many[0][0])
        assert np.array_equal(mask, many[0][1])
        other = draw_phantom(kind, np.random.default_rng([7, 1]))
        assert other[0].shape != image.shape or not np.array_equal(other[0], image)

    def test_a_picture_does_not_depend_on_what_was_drawn_before(self):
        draw_phantom("ultrasound", np.random.default_rng(4))
        again = draw_phantom("endoscopy", np.random.default_rng([7, 3]))
        assert all(map(np.array_equal, drawn("endoscopy")[3], again))

    def test_the_lesion_differs_from_its_surroundings(self, many):
        """The step across the edge is on average several times that across the same outline put elsewhere."""
        assert np.mean([_step(image, mask) for image, mask in many[:20]]) > 1.5 * np.mean(
            [_step(image, np.roll(mask[::-1, ::-1], mask.shape[1] // 3, axis=1)) for image, mask in many[:20]]
        )

    def test_unknown_kind(self):
        with pytest.raises(ConfigError, match="'xray' is unknown: use 'endoscopy' or 'ultrasound'"):
            draw_phantom("xray", np.random.default_rng(0))


def _step(image: np.ndarray, mask: np.ndarray) -> float:
    """Colour distance between a ring inside and one outside the outline, black pixels left out."""
    seen = image.max(axis=2) > 24
    inner = mask & ~ndimage.binary_erosion(mask, iterations=6) & seen
    outer = ndimage.binary_dilation(mask, iterations=8) & ~ndimage.binary_dilation(mask, iterations=2) & seen
    if not inner.any() or not outer.any():
        return 0.0
    return float(np.linalg.norm(image[inner].mean(axis=0) - image[outer].mean(axis=0)))


class TestEndoscopy:
    def test_corners_are_black(self):
        for image, _ in drawn("endoscopy"):
            assert not image[[0, 0, -1, -1], [0, -1, 0, -1]].any()

    def test_mask_lies_in_the_field_of_view(self):
        """What the recorder blacks out is exactly black, what the lens sees never over a stretch of pixels."""
        for image, mask in drawn("endoscopy"):
            dark = ndimage.binary_opening(image.max(axis=2) == 0, iterations=4)
            assert (mask & dark).sum() <= 0.002 * mask.sum()

    def test_tissue_is_reddish_and_has_highlights(self):
        red, green, blue = np.mean(
            [image[image.max(axis=2) > 24].mean(axis=0) for image, _ in drawn("endoscopy")], axis=0
        )
        assert red > 1.4 * green > 1.4 * blue
        assert np.mean([(image.min(axis=2) > 230).mean() for image, _ in drawn("endoscopy")]) > 0.001

    def test_sometimes_there_are_two_lesions(self):
        counts = [_lesions(mask) for _, mask in drawn("endoscopy")]
        assert counts.count(1) > 25
        assert max(counts) >= 2


def _lesions(mask: np.ndarray) -> int:
    labels, _ = ndimage.label(mask)
    return int((np.bincount(labels.ravel())[1:] > 0.002 * mask.size).sum())


class TestUltrasound:
    def test_one_lesion_in_one_piece(self):
        assert {ndimage.label(mask)[1] for _, mask in drawn("ultrasound")} == {1}

    def test_grey_and_lesion_darker_than_its_surroundings(self):
        darker = []
        for image, mask in drawn("ultrasound")[:12]:
            assert not np.ptp(image, axis=2).any()
            ring = ndimage.binary_dilation(mask, iterations=15) & ~mask
            darker.append(image[mask].mean() < image[ring].mean())
        assert np.mean(darker) >= 0.9

    def test_speckle_is_correlated_over_a_few_pixels_and_wider_than_high(self):
        """What a point-spread function leaves: three pixels on, the speckle is still alike across the beam."""
        along_depth, across = [], []
        for image, _ in drawn("ultrasound")[:6]:
            grey = image[..., 0].astype(float)
            speckle = grey - ndimage.gaussian_filter(grey, 5)
            along_depth.append((speckle[3:] * speckle[:-3]).mean() / speckle.var())
            across.append((speckle[:, 3:] * speckle[:, :-3]).mean() / speckle.var())
        assert np.mean(across) > np.mean(along_depth) + 0.1
        assert np.mean(across) > 0.2


class TestPhantomDataset:
    def test_names_and_terms(self):
        data = phantom_dataset(n_train=3, n_dev=2, n_val=1)
        assert data.train.names == ["endoscopy-train-0000", "endoscopy-train-0001", "endoscopy-train-0002"]
        assert data.dev.names[1] == "endoscopy-dev-0001"
        assert data.val[0].name == "endoscopy-val-0000"
        assert "no patient" in data.licence
        assert phantom_dataset("ultrasound", 1, 0, 0).train.names == ["ultrasound-train-0000"]

    def test_defaults_are_80_16_32(self):
        assert str(phantom_dataset()) == "endoscopy-phantoms: 80 train, 16 dev, 64 val"

    def test_a_case_depends_on_seed_split_and_place_alone(self):
        small = phantom_dataset("ultrasound", n_train=1, n_dev=1, n_val=1)
        large = phantom_dataset("ultrasound", n_train=50, n_dev=9, n_val=2)
        for split in ("train", "dev", "val"):
            assert getattr(small, split)[0].digest == getattr(large, split)[0].digest
        other = phantom_dataset("ultrasound", n_train=1, n_dev=1, n_val=1, seed=1)
        cases = [data.train[0] for data in (small, other)] + [small.dev[0], small.val[0], large.train[1]]
        assert len({case.digest for case in cases}) == len(cases)

    def test_a_case_is_what_its_generator_draws(self):
        case = phantom_dataset("ultrasound", n_dev=3, seed=5).dev[2]
        image, mask = draw_phantom("ultrasound", np.random.default_rng([5, 1, 2]))
        assert np.array_equal(case.image, image)
        assert np.array_equal(case.mask, mask)

    def test_a_case_is_drawn_once_and_cannot_be_changed_for_others(self):
        data = phantom_dataset("ultrasound", n_train=1)
        assert data.train[0] is data.train[0]
        with pytest.raises(ValueError, match="read-only"):
            data.train[0].image[0, 0] = 0
        with pytest.raises(ValueError, match="read-only"):
            data.train[0].mask[0, 0] = True

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"kind": "mri"}, "phantom kind 'mri' is unknown"),
            ({"n_train": -1}, "n_train is -1: use a whole number from 0 up"),
            ({"n_val": 2.5}, "n_val is 2.5"),
            ({"n_dev": True}, "n_dev is True"),
            ({"seed": -3}, "seed is -3"),
        ],
    )
    def test_bad_arguments(self, options, message):
        with pytest.raises(ConfigError, match=message):
            phantom_dataset(**options)


class TestSaveFolder:
    def test_round_trip_is_exact(self, tmp_path):
        data = phantom_dataset("ultrasound", n_train=2, n_dev=1, n_val=1)
        folder = tmp_path / "new" / "phantoms"
        save_folder(data, folder)
        assert (folder / "train.txt").read_text().split() == [*data.train.names, *data.dev.names]
        assert (folder / "val.txt").read_text().split() == data.val.names
        case = data.train[1]
        assert np.array_equal(np.asarray(Image.open(folder / "images" / f"{case.name}.png")), case.image)
        assert np.array_equal(np.asarray(Image.open(folder / "masks" / f"{case.name}.png")), case.mask)
        back = folder_dataset(folder)
        assert back.val.digest == data.val.digest
        read = {case.name: case.digest for split in (back.train, back.dev) for case in split}
        assert read == {case.name: case.digest for split in (data.train, data.dev) for case in split}

    def test_refuses_what_is_not_an_empty_folder(self, tmp_path):
        data = phantom_dataset("ultrasound", n_train=1, n_dev=0, n_val=0)
        note = tmp_path / "mine.txt"
        note.write_text("precious")
        for place in (tmp_path, note):
            with pytest.raises(DataError, match="is not an empty folder"):
                save_folder(data, place)
        assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
        assert note.read_text() == "precious"

    def test_an_interrupted_save_leaves_whole_files_and_no_lists(self, tmp_path):
        case = phantom_dataset("ultrasound", n_train=1).train[0]

        def load(name: str) -> Case:
            if name == "second":
                raise KeyboardInterrupt
            return Case(name, case.image, case.mask)

        none = Cases([], load)
        with pytest.raises(KeyboardInterrupt):
            save_folder(Dataset("broken", Cases(["first", "second"], load), none, none, "", ""), tmp_path / "out")
        files = sorted(path.relative_to(tmp_path / "out").as_posix() for path in tmp_path.rglob("*") if path.is_file())
        assert files == ["images/first.png", "masks/first.png"]


class TestTexture:
    def test_canvas_is_centred_and_reaches_one_on_the_shorter_side(self):
        canvas = Canvas.of_width(8, 2.0)
        assert canvas.size_hw == (4, 8)
        assert canvas.y[:, 0].tolist() == [-0.75, -0.25, 0.25, 0.75]
        assert canvas.x[0].tolist() == [-1.75, -1.25, -0.75, -0.25, 0.25, 0.75, 1.25, 1.75]

    @pytest.mark.parametrize("octaves", [1, 4])
    def test_noise_is_float32_with_the_promised_spread(self, octaves):
        canvas = Canvas.of_width(300, 1.2)
        drawn = [canvas.noise(np.random.default_rng(seed), 0.2, octaves) for seed in range(8)]
        assert drawn[0].dtype == np.float32
        assert drawn[0].shape == canvas.size_hw
        assert abs(np.mean(drawn)) < 0.15
        assert 0.7 < np.std(drawn) < 1.3

    def test_soft_step_both_ways(self):
        values = np.array([-1, 0, 0.5, 1, 2], np.float32)
        assert soft_step(values, 0, 1).tolist() == [0, 0, 0.5, 1, 1]
        assert soft_step(values, 1, 0).tolist() == [1, 1, 0.5, 0, 0]

    def test_ellipse_distance_by_hand(self):
        x, y = np.array([1, 3, 1, 5], np.float32), np.array([2, 2, 3, 2], np.float32)
        assert ellipse_distance(x, y, (1, 2), (2, 1)).tolist() == [0, 1, 1, 2]
        assert ellipse_distance(x, y, (1, 2), (1, 2), np.pi / 2) == pytest.approx([0, 1, 1, 2])

    def test_smooth_union_is_at_most_the_nearest_and_close_to_it(self):
        one, other = np.array([0.2, 1.0], np.float32), np.array([2.0, 1.0], np.float32)
        union = smooth_union([one, other], sharpness=8)
        assert union == pytest.approx([0.2, 1 - np.log(2) / 8], abs=1e-5)

    def test_a_shape_without_lobes_and_waves_is_an_ellipse(self):
        canvas = Canvas.of_width(200, 1.25)
        distance = lobed_distance(canvas.x, canvas.y, np.zeros(2), 0.5, 0, 0.0, np.random.default_rng(0))
        area = (distance < 1).sum() / canvas.unit**2
        assert 0.5 * 0.5 * 0.5 * np.pi <= area <= 0.5 * 0.5 * np.pi
        assert distance.dtype == np.float32


class TestCache:
    @pytest.fixture
    def forget(self):
        """Empty the memory, so that the next case comes from the cache folder."""
        phantoms._load_case.cache_clear()
        yield phantoms._load_case.cache_clear
        phantoms._load_case.cache_clear()

    def test_a_kept_phantom_is_the_drawn_one_pixel_by_pixel(self, cache, forget):
        first = phantom_dataset(n_val=1).val[0]
        (path,) = (cache / "phantoms").rglob("*.png")
        image, mask = draw_phantom("endoscopy", np.random.default_rng([0, 2, 0]))
        forget()
        kept = phantom_dataset(n_val=1).val[0]
        assert kept is not first
        assert path.stem == kept.name
        np.testing.assert_array_equal(kept.image, image)
        np.testing.assert_array_equal(kept.mask, mask)

    @pytest.mark.parametrize("share", [0, 0.5], ids=["empty", "cut off"])
    def test_a_damaged_file_is_drawn_again(self, cache, forget, share):
        digest = phantom_dataset(n_val=1).val[0].digest
        (path,) = (cache / "phantoms").rglob("*.png")
        whole = path.read_bytes()
        path.write_bytes(whole[: int(share * len(whole))])
        forget()
        assert phantom_dataset(n_val=1).val[0].digest == digest
        assert path.read_bytes() == whole
