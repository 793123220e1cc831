"""`EmbeddingStore`: what a frozen encoder says of an image never changes, so it is computed once and kept."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from filelock import FileLock
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from medsam_helpers.errors import StoreError
from medsam_helpers.files import atomic_write, cache_dir
from medsam_helpers.sam.checkpoints import sha256_of
from medsam_helpers.sam.loading import ModelInfo

SHARD_SIZE = 32
"""Embeddings a file: 64 MB of them for SAM's 256 x 64 x 64 in fp16."""


class EmbeddingStore:
    """A folder of fp16 embeddings, found by the digest of the image's pixels.

    The folder belongs to one encoder, preprocessing and precision, its *key*. Embeddings lie in safetensors shards;
    `manifest.json` lists each shard's images and checksum. A shard is whole or not there, so a build that was killed
    goes on where it stopped, and several processes may fill one store at a time.

    Args:
        folder: made where missing.
        key: what the embeddings depend on beside the image.
    Raises:
        StoreError: the folder was made with another key; says which.
    """

    def __init__(self, folder: Path, key: Mapping[str, str | int]) -> None:
        self.folder, self.key = Path(folder), dict(key)
        self._manifest_path = self.folder / "manifest.json"
        self._lock = FileLock(self.folder / ".lock")
        self._files: dict[str, safe_open] = {}
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._lock:
            if not self._manifest_path.exists():
                self._write_shards({})
        self.reload()

    @classmethod
    def for_model(cls, info: ModelInfo, precision: str, root: Path | None = None) -> EmbeddingStore:
        """The store of a model under `root` (default: the cache), one folder a key."""
        key = {
            "base": info.name,
            "base_digest": info.base_digest,
            "model_size": info.model_size,
            "pixel_scaling": info.pixel_scaling,
            "precision": precision,
        }
        name = f"{info.name}-{info.base_digest[:12]}-{precision}"
        return cls((root or cache_dir() / "embeddings") / name, key)

    def __len__(self) -> int:
        return len(self._shard_of)

    def __contains__(self, digest: object) -> bool:
        return digest in self._shard_of

    def __getitem__(self, digest: str) -> Tensor:
        """(256, 64, 64) float16.

        Raises:
            KeyError: not in the store.
            StoreError: its shard is damaged; building again mends it.
        """
        shard = self._shard_of[digest]
        if shard not in self._files and not self._open(shard):
            raise StoreError(f"{self.folder / shard} is damaged: embed the data again, and it is rebuilt")
        return self._files[shard].get_tensor(digest)

    def build(
        self,
        images: Iterable[tuple[str, Callable[[], Tensor]]],
        shard_size: int = SHARD_SIZE,
    ) -> int:
        """Embed what is missing, or lies in a damaged shard (which is named in a warning and dropped).

        Args:
            images: pairs of an image's digest and a function that gives its embedding, called only when needed.
            shard_size: embeddings a file; what is done so far is kept when the build is interrupted.
        Returns:
            How many were computed.
        """
        computed, pending = 0, {}
        try:
            for digest, embed in images:
                if digest not in pending and not self._is_intact(digest):
                    pending[digest] = embed()
                    computed += 1
                    if len(pending) >= shard_size:
                        self._flush(pending)
        finally:  # an interrupt too keeps what was computed
            self._flush(pending)
        return computed

    def _flush(self, pending: dict[str, Tensor]) -> None:
        if not pending:
            return
        name = f"{next(iter(pending))[:16]}-{len(pending)}.safetensors"
        with atomic_write(self.folder / name) as temporary:
            save_file({k: v.detach().half().cpu().contiguous() for k, v in pending.items()}, temporary)
            entry = {"sha256": sha256_of(temporary), "images": list(pending)}
        with self._lock:
            self._write_shards({**self._read_shards(), name: entry})
        self.reload()
        pending.clear()

    def _is_intact(self, digest: str) -> bool:
        shard = self._shard_of.get(digest)
        if shard is None:
            return False
        if shard in self._files or self._open(shard):
            return True
        lost = len(self._shards[shard]["images"])
        warnings.warn(f"{self.folder / shard} is damaged: its {lost} embeddings are computed again", stacklevel=4)
        with self._lock:
            self._write_shards({name: entry for name, entry in self._read_shards().items() if name != shard})
            (self.folder / shard).unlink(missing_ok=True)
        self.reload()
        return False

    def _open(self, shard: str) -> bool:
        """Open a shard after checking its checksum, once a process; False where it is damaged or gone."""
        path = self.folder / shard
        if not path.exists() or sha256_of(path) != self._shards[shard]["sha256"]:
            return False
        self._files[shard] = safe_open(path, framework="pt")
        return True

    def reload(self) -> None:
        """See what other processes have added since."""
        self._shards = self._read_shards()
        self._shard_of = {image: name for name, entry in self._shards.items() for image in entry["images"]}

    def _read_shards(self) -> dict[str, dict]:
        try:
            manifest = json.loads(self._manifest_path.read_text())
            found, shards = manifest["key"], manifest["shards"]
        except (OSError, json.JSONDecodeError, KeyError, TypeError) as error:
            raise StoreError(
                f"{self._manifest_path}: not the manifest of an embedding store ({error}); delete the folder"
            ) from error
        if found != self.key:
            wrong = [f"{k} is {found.get(k)!r}, asked for {v!r}" for k, v in self.key.items() if found.get(k) != v]
            raise StoreError(f"{self.folder} holds embeddings of another model: {'; '.join(wrong)}; use another folder")
        return shards

    def _write_shards(self, shards: Mapping[str, dict]) -> None:
        with atomic_write(self._manifest_path) as temporary:
            temporary.write_text(json.dumps({"key": self.key, "shards": shards}, indent=1) + "\n")
