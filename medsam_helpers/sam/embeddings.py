"""`EmbeddingStore`: embeddings of a frozen encoder, which never change, computed once and kept."""

import hashlib
import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from medsam_helpers.device import default_device
from medsam_helpers.errors import StoreError
from medsam_helpers.files import atomic_write, cache_dir, remove_leftovers, write_text
from medsam_helpers.sam.loading import ModelInfo, scaled_pixels

_MAPPED_AT_ONCE = 30_000  # files; Linux allows a process 65,530


class EmbeddingStore:
    """A folder of fp16 embeddings, each a file that is found by the digest of the image's pixels.

    `key.json` holds the key: all that they depend on beside the image, encoder, preprocessing and precision; each has a
    checksum over key and values. Several threads and processes may fill one store. `StoreError`: the folder, which is
    made where missing, was made with another key.
    """

    def __init__(self, folder: Path, key: Mapping[str, str | int]) -> None:
        self.folder, self.key = Path(folder), dict(key)
        self._mapped: dict[str, Tensor] = {}
        path = self.folder / "key.json"
        try:
            found = dict(json.loads(path.read_text()))
        except (OSError, ValueError, TypeError, RecursionError) as error:
            if not isinstance(error, FileNotFoundError):
                # Nothing is lost: the checksums tell which embeddings are of this key.
                warnings.warn(f"{path} is damaged ({type(error).__name__}): written anew", stacklevel=2)
            found = self.key
            write_text(path, json.dumps(found, indent=1) + "\n")
        self._refuse(found, self.key)

    @classmethod
    def for_model(cls, info: ModelInfo, precision: str, root: Path | None = None) -> Self:
        """The store of a model under `root` (default: the cache), one folder a key."""
        if (device := default_device().type) != "cpu":  # it rounds otherwise
            precision = f"{precision}-{device}"
        name = info.name if info.embeds == "features" else f"{info.name}-{info.embeds}"
        root = root or cache_dir() / "image-embeddings"
        return cls(root / f"{name}-{info.base_digest[:12]}-{precision}", _key_of(info) | {"precision": precision})

    def check(self, info: ModelInfo) -> None:
        """Raise `StoreError` where the embeddings are not those of this model's encoder."""
        self._refuse({"embeds": "features", **self.key}, {"embeds": "features", **_key_of(info)})

    def _refuse(self, found: Mapping[str, str | int], asked: Mapping[str, str | int]) -> None:
        if wrong := [f"{k} is {found.get(k)!r}, asked for {v!r}" for k, v in asked.items() if found.get(k) != v]:
            raise StoreError(f"{self.folder} holds embeddings of another model: {'; '.join(wrong)}; use another folder")

    def __contains__(self, digest: object) -> bool:
        return self._path(str(digest)).is_file()

    def __getitem__(self, digest: str) -> Tensor:
        """(256, 64, 64) float16, memory-mapped; of an image (h, w, 3) uint8 its pixels, see `scaled_pixels`.

        Raises:
            KeyError: not in the store.
            StoreError: damaged; building again mends it.
        """
        embedding = self._read(digest)
        if embedding is None:
            if digest not in self:
                raise KeyError(digest)
            raise StoreError(f"{self._path(digest)} is damaged: embed the data again, and it is rebuilt")
        if embedding.dtype == torch.uint8:
            return scaled_pixels(embedding, str(self.key["pixel_scaling"]), int(self.key["model_size"])).half()
        return embedding

    def holds(self, digest: str) -> bool:
        """Whether the embedding is there and whole; of a damaged one a warning says that it has to be made again."""
        whole = self._read(digest) is not None
        if not whole and digest in self:
            warnings.warn(f"{self._path(digest)} is damaged: it is computed again", stacklevel=2)
        return whole

    def put(self, digest: str, embedding: Tensor) -> None:
        """Keep an embedding, in fp16, or an image as uint8; what killed writers left half-written there is removed."""
        embedding, path = embedding.detach().cpu().contiguous(), self._path(digest)
        embedding = embedding.half() if embedding.is_floating_point() else embedding
        remove_leftovers(path.parent, ".*", older_s=3600)
        with atomic_write(path) as temporary:
            save_file({"embedding": embedding}, temporary, metadata={"sha256": self._checksum(embedding)})

    def _path(self, digest: str) -> Path:
        return self.folder / digest[:2] / f"{digest}.safetensors"

    def _read(self, digest: str) -> Tensor | None:
        """The embedding, checked when it is first read and mapped from then on; None where it is missing or damaged."""
        if digest not in self._mapped:
            try:
                with safe_open(self._path(digest), framework="pt") as file:
                    embedding, stored = file.get_tensor("embedding"), (file.metadata() or {}).get("sha256")
            except (OSError, SafetensorError):
                return None
            if stored != self._checksum(embedding):
                return None
            if len(self._mapped) >= _MAPPED_AT_ONCE:
                self._mapped.clear()
            self._mapped[digest] = embedding
        return self._mapped[digest]

    def _checksum(self, embedding: Tensor) -> str:
        sha = hashlib.sha256(json.dumps(self.key, sort_keys=True).encode())
        sha.update(embedding.numpy().data)
        return sha.hexdigest()


def _key_of(info: ModelInfo) -> dict[str, str | int]:
    """What embeddings depend on beside image and precision."""
    key: dict[str, str | int] = {"base": info.name, "base_digest": info.base_digest, "model_size": info.model_size}
    key["pixel_scaling"] = info.pixel_scaling
    return key | ({"embeds": info.embeds} if info.embeds != "features" else {})


class Resident:
    """The embeddings of a store on a GPU: each stays there from its first use on, as long as they fit.

    That is up to `MEDSAM_RESIDENT_MB`, by default half of what is free.
    """

    def __init__(self, store: EmbeddingStore, device: torch.device) -> None:
        self.store, self.device = store, device
        self._held: dict[str, Tensor] = {}
        set_mb = float(os.environ.get("MEDSAM_RESIDENT_MB") or 0)
        self._room = set_mb * 1e6 if set_mb or device.type != "cuda" else torch.cuda.mem_get_info(device)[0] / 2

    def __getitem__(self, digest: str) -> Tensor:
        """(256, 64, 64) float16 on the device; errors as those of `EmbeddingStore`."""
        if digest in self._held:
            return self._held[digest]
        embedding = self.store[digest].to(self.device)
        if embedding.nbytes <= self._room:
            self._held[digest], self._room = embedding, self._room - embedding.nbytes
        return embedding
