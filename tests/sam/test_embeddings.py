"""The store: what it keeps through interrupts, damage and several writers."""

import hashlib
import multiprocessing
import os
import time
import warnings

import numpy as np
import pytest
import torch
from helpers import draw_discs, embedded, make_tiny_sam

from medsam_helpers.errors import StoreError
from medsam_helpers.sam import embeddings
from medsam_helpers.sam.embeddings import EmbeddingStore
from medsam_helpers.sam.loading import model_info, pixel_values
from medsam_helpers.sam.segmenter import Segmenter
from medsam_helpers.sam.unfrozen import unfrozen
from medsam_helpers.training.recipes import RECIPES

KEY = {"base": "test", "precision": "fp32"}
NAMES = [hashlib.sha256(bytes([number])).hexdigest() for number in range(24)]


def value(digest: str) -> torch.Tensor:
    return torch.full((4, 2, 2), float(int(digest, 16) % 100))


def fill(folder, digests):
    """The digests of those that were not there: these are now."""
    store = EmbeddingStore(folder, KEY)
    missing = [digest for digest in digests if not store.holds(digest)]
    for digest in missing:
        store.put(digest, value(digest))
    return missing


def test_what_was_put_there_is_found_by_a_new_store(tmp_path):
    assert fill(tmp_path, NAMES[:3]) == NAMES[:3]
    assert fill(tmp_path, NAMES[:5]) == NAMES[3:5]
    again = EmbeddingStore(tmp_path, KEY)
    assert (NAMES[0] in again, again.holds(NAMES[0]), "ff" in again) == (True, True, False)
    assert again[NAMES[3]].dtype == torch.float16
    assert torch.equal(again[NAMES[3]], value(NAMES[3]).half())
    with pytest.raises(KeyError):
        again["ff"]


def test_what_a_killed_process_left_half_written_is_removed_and_what_another_writes_now_is_not(tmp_path):
    fill(tmp_path, NAMES[:1])
    (place,) = (path for path in tmp_path.iterdir() if path.is_dir())
    for name, age_s in (("old", 7200), ("young", 60)):
        (place / f".{name}.part.safetensors").touch()
        os.utime(place / f".{name}.part.safetensors", times=(time.time() - age_s,) * 2)
    fill(tmp_path, [NAMES[0][:2] + NAMES[1][2:]])  # into the same place
    assert [path.name for path in place.glob(".*")] == [".young.part.safetensors"]


@pytest.mark.parametrize("harm", ["flip", "cut"])
def test_a_damaged_embedding_is_named_and_only_it_is_rebuilt(tmp_path, harm):
    fill(tmp_path, NAMES[:3])
    (path,) = tmp_path.rglob(f"{NAMES[1]}.safetensors")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content if harm == "flip" else content[:-8])
    store = EmbeddingStore(tmp_path, KEY)
    with pytest.raises(StoreError, match=rf"{path.name} is damaged: embed the data again"):
        store[NAMES[1]]
    with pytest.warns(UserWarning, match=rf"{path.name} is damaged: it is computed again"):
        assert fill(tmp_path, NAMES[:3]) == [NAMES[1]]
    assert torch.equal(store[NAMES[1]], value(NAMES[1]).half())


def test_a_store_of_another_model_is_refused(tiny_sam, tmp_path, monkeypatch):
    stores = [EmbeddingStore.for_model(model_info(tiny_sam), precision, tmp_path) for precision in ("fp32", "bf16")]
    with monkeypatch.context() as on_a_gpu:  # which rounds otherwise
        on_a_gpu.setattr(embeddings, "default_device", lambda: torch.device("cuda"))
        stores.append(EmbeddingStore.for_model(model_info(tiny_sam), "fp32", tmp_path))
    assert len({store.folder for store in stores}) == 3
    tiny_sam.config.pixel_scaling = "minmax"
    with pytest.raises(StoreError, match=r"another model: pixel_scaling is 'imagenet', asked for 'minmax'"):
        EmbeddingStore.for_model(model_info(tiny_sam), "fp32", tmp_path)
    with pytest.raises(StoreError, match=r"pixel_scaling is 'imagenet', asked for 'minmax'"):
        Segmenter(tiny_sam, store=stores[0]).predict_case(draw_discs(1)[0], np.array([[9, 9, 40, 40]]))


def test_an_image_is_kept_in_uint8_and_comes_back_as_its_pixels(tmp_path):
    (case,) = draw_discs(1)
    segmenter = embedded(unfrozen(make_tiny_sam(), RECIPES["lora"].as_dict()), [case], tmp_path)
    pixels = pixel_values(case.image, segmenter.info)[0].half()
    assert torch.equal(segmenter.store[case.image_digest], pixels)
    assert next(tmp_path.rglob("*.safetensors")).stat().st_size < 0.5 * pixels.nbytes


@pytest.mark.parametrize("content", ["{", "\udcff"])
def test_a_damaged_key_is_written_anew_and_embeddings_of_another_are_not_taken_for_it(tmp_path, content):
    fill(tmp_path, NAMES[:2])
    (tmp_path / "key.json").write_text(content, errors="surrogateescape")
    with pytest.warns(UserWarning, match=r"key\.json is damaged .*written anew"):
        assert EmbeddingStore(tmp_path, KEY)[NAMES[0]].shape == (4, 2, 2)
    (tmp_path / "key.json").unlink()
    other = EmbeddingStore(tmp_path, {**KEY, "precision": "bf16"})
    with pytest.raises(StoreError, match="is damaged"):
        other[NAMES[0]]


def _fill(folder, digests):
    warnings.simplefilter("error")
    fill(folder, digests)


def test_several_processes_fill_one_store_at_a_time(tmp_path):
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_fill, args=(tmp_path, names)) for names in (NAMES[:16], NAMES[8:])]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    store = EmbeddingStore(tmp_path, KEY)
    assert len([*store.folder.glob("*/[!.]*.safetensors")]) == 24
    assert all(torch.equal(store[name], value(name).half()) for name in NAMES)
