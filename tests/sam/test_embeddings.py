"""The store: what it keeps through interrupts, damage and several writers."""

import hashlib
import json
import multiprocessing
import warnings

import pytest
import torch

from medsam_helpers.errors import StoreError
from medsam_helpers.sam.checkpoints import sha256_of
from medsam_helpers.sam.embeddings import EmbeddingStore
from medsam_helpers.sam.loading import model_info

KEY = {"base": "test", "precision": "fp32"}


def value(digest: str) -> torch.Tensor:
    return torch.full((4, 2, 2), float(int(digest, 16) % 100))


def images(*digests, calls=None):
    for digest in digests:

        def embed(digest=digest):
            if calls is not None:
                calls.append(digest)
            return value(digest)

        yield digest, embed


def digest_of(number: int) -> str:
    return hashlib.sha256(bytes([number])).hexdigest()


NAMES = [digest_of(number) for number in range(5)]


def test_each_image_is_embedded_once_and_found_by_a_new_store(tmp_path):
    calls = []
    store = EmbeddingStore(tmp_path, KEY)
    assert store.build(images(*NAMES, NAMES[0], calls=calls), shard_size=2) == 5
    again = EmbeddingStore(tmp_path, KEY)
    assert again.build(images(*NAMES, calls=calls), shard_size=2) == 0
    assert calls == NAMES
    assert len(again) == 5
    assert again[NAMES[3]].dtype == torch.float16
    assert torch.equal(again[NAMES[3]], value(NAMES[3]).half())
    assert NAMES[0] in again
    assert "ff" not in again


def test_an_interrupted_build_keeps_what_it_had_and_goes_on(tmp_path):
    def interrupted():
        yield from images(*NAMES[:3])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        EmbeddingStore(tmp_path, KEY).build(interrupted(), shard_size=2)
    calls = []
    assert EmbeddingStore(tmp_path, KEY).build(images(*NAMES, calls=calls)) == 2
    assert calls == NAMES[3:]


def shard_of(store, digest):
    return store.folder / store._shard_of[digest]


@pytest.mark.parametrize("harm", ["flip", "cut", "delete"])
def test_a_damaged_shard_is_named_and_only_it_is_rebuilt(tmp_path, harm):
    EmbeddingStore(tmp_path, KEY).build(images(*NAMES), shard_size=2)
    store = EmbeddingStore(tmp_path, KEY)
    path = shard_of(store, NAMES[2])
    content = bytearray(path.read_bytes())
    if harm == "flip":
        content[-1] ^= 1
        path.write_bytes(content)
    elif harm == "cut":
        path.write_bytes(content[:-8])
    else:
        path.unlink()
    with pytest.raises(StoreError, match=rf"{path.name} is damaged: embed the data again"):
        store[NAMES[2]]
    calls = []
    with pytest.warns(UserWarning, match=rf"{path.name} is damaged: its 2 embeddings are computed again"):
        store.build(images(*NAMES, calls=calls))
    assert calls == NAMES[2:4]
    assert torch.equal(EmbeddingStore(tmp_path, KEY)[NAMES[2]], value(NAMES[2]).half())


def test_a_store_of_another_model_is_refused(tmp_path):
    EmbeddingStore(tmp_path, KEY)
    with pytest.raises(StoreError, match=r"another model: precision is 'fp32', asked for 'bf16'"):
        EmbeddingStore(tmp_path, {**KEY, "precision": "bf16"})


def test_a_broken_manifest_is_named(tmp_path):
    EmbeddingStore(tmp_path, KEY)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(StoreError, match=r"manifest\.json: not the manifest of an embedding store"):
        EmbeddingStore(tmp_path, KEY)


def test_the_manifest_holds_each_shards_checksum(tmp_path):
    EmbeddingStore(tmp_path, KEY).build(images(*NAMES), shard_size=2)
    shards = json.loads((tmp_path / "manifest.json").read_text())["shards"]
    assert sorted(len(entry["images"]) for entry in shards.values()) == [1, 2, 2]
    assert all(sha256_of(tmp_path / name) == entry["sha256"] for name, entry in shards.items())
    assert {p.name for p in tmp_path.glob("*.safetensors")} == set(shards)


def _fill(folder, digests):
    warnings.simplefilter("error")
    EmbeddingStore(folder, KEY).build(images(*digests), shard_size=2)


def test_several_processes_fill_one_store_at_a_time(tmp_path):
    names = [digest_of(number) for number in range(24)]
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_fill, args=(tmp_path, names[rank::2])) for rank in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    store = EmbeddingStore(tmp_path, KEY)
    assert len(store) == 24
    assert all(torch.equal(store[name], value(name).half()) for name in names)


def test_models_precisions_and_preprocessings_have_stores_of_their_own(tiny_sam, tmp_path):
    info = model_info(tiny_sam)
    folders = {EmbeddingStore.for_model(info, precision, tmp_path).folder for precision in ("fp32", "bf16")}
    assert len(folders) == 2
    tiny_sam.config.pixel_scaling = "minmax"
    with pytest.raises(StoreError, match="pixel_scaling"):
        EmbeddingStore.for_model(model_info(tiny_sam), "fp32", tmp_path)
