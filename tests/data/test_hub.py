"""Hub data sets: local parquet repositories with exactly their schemas, a hub on the loopback, and no hub at all."""

import io
import json
import os
import socket
from pathlib import Path

import datasets
import numpy as np
import pytest
from helpers import draw_discs, loopback, python
from huggingface_hub import constants
from PIL import Image
from werkzeug import Response

from medsam_helpers.data import hub
from medsam_helpers.data.case import Cases
from medsam_helpers.data.loading import load_data
from medsam_helpers.errors import DataError
from medsam_helpers.runs.folds import everything

DISCS = draw_discs(130)


def write_repository(folder: Path, **splits: dict[str, list]) -> Path:
    """A local copy of a repository of the hub: columns of each split, all but `name` pictures."""
    (folder / "data").mkdir(parents=True)
    for split, columns in splits.items():
        kinds = {name: datasets.Value("string") if name == "name" else datasets.Image() for name in columns}
        rows = datasets.Dataset.from_dict(columns, features=datasets.Features(kinds))
        rows.to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    return folder


def kvasir_split(cases: Cases) -> dict[str, list]:
    """Columns as on the hub: masks are RGB JPEG with noise round 0 and 255."""
    masks = []
    for case in cases:
        file = io.BytesIO()
        Image.fromarray(case.mask).convert("RGB").save(file, "JPEG", quality=75)
        masks.append({"bytes": file.getvalue(), "path": f"{case.name}.jpg"})
    return {"name": cases.names, "image": [Image.fromarray(case.image) for case in cases], "annotation": masks}


def breast_split(cases: Cases) -> dict[str, list]:
    """Columns as on the hub: masks are int32 {0, 1}, which `convert("L") > 127` would lose."""
    masks = [Image.fromarray(case.mask.astype(np.int32)) for case in cases]
    return {"image": [Image.fromarray(case.image) for case in cases], "label": masks}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture(scope="module")
def breast_repository(tmp_path_factory) -> Path:
    return write_repository(tmp_path_factory.mktemp("hub") / "breast-cancer", train=breast_split(DISCS))


def test_kvasir_keeps_its_official_split_and_its_names(tmp_path):
    splits = {"train": kvasir_split(DISCS[:30]), "validation": kvasir_split(DISCS[30:36])}
    data = load_data(write_repository(tmp_path / "Kvasir-SEG", **splits))
    assert str(data) == "Kvasir-SEG: 27 train, 3 dev, 6 val"
    assert sorted(data.val.names) == DISCS.names[30:36]
    for case in [*data.dev, *data.val]:
        drawn = DISCS.load(case.name)
        assert case.image_digest == drawn.image_digest
        assert np.mean(case.mask != drawn.mask) < 0.01  # JPEG frays the edge


def test_breast_gets_the_fixed_split_and_labels_0_and_1_become_masks(breast_repository):
    data = load_data(breast_repository)
    assert str(data) == "breast-cancer: 94 train, 10 dev, 26 val"
    for case in data.val:
        assert case.digest == DISCS[int(case.name.removeprefix("train-"))].digest


def test_bad_rows_stop_with_the_list_or_are_left_out_by_name_and_a_test_split_is_kept_apart(tmp_path):
    bad, good = breast_split(DISCS[:10]), breast_split(DISCS[:2])
    bad["image"][2] = {"bytes": b"no image", "path": None}
    bad["label"][5] = Image.fromarray(np.zeros((24, 32), np.int32))
    path = write_repository(tmp_path / "bad", train=bad, validation=good, test=good)
    with pytest.raises(DataError, match=r"(?s)2 bad cases.*train-0005: the mask"):
        load_data(path)
    data = load_data(path, skip_bad=True)
    assert sorted(data.val.names) == ["validation-0000", "validation-0001"]
    assert len(data.left_out) == 2
    assert data.test.names == ["test-0000", "test-0001"]


@pytest.mark.parametrize("part", ["", "train"])
def test_what_the_library_saved_and_image_folders_with_metadata_load_too(part, tmp_path):
    discs, folder = DISCS[:6], tmp_path / "folder" / part
    repository = write_repository(tmp_path / "hub", train=breast_split(discs))
    datasets.load_dataset(str(repository)).save_to_disk(tmp_path / "saved")
    assert len(everything(load_data(tmp_path / "saved"))) == 6
    folder.mkdir(parents=True)
    lines = ["file_name,mask_file_name"]
    for case in discs:
        Image.fromarray(case.image).save(folder / f"{case.name}.png")
        Image.fromarray(case.mask).save(folder / f"{case.name}-m.png")
        lines.append(f"{case.name}.png,{case.name}-m.png")
    (folder / "metadata.csv").write_text("\n".join(lines))
    loaded = everything(load_data(tmp_path / "folder"))
    assert {case.digest for case in loaded} == {case.digest for case in discs}


def test_another_schema_is_refused_with_its_columns(tmp_path):
    columns = breast_split(DISCS[:1])
    path = write_repository(tmp_path / "other", train={"picture": columns["image"], "name": ["a"]})
    with pytest.raises(DataError, match=r"other: split train has the columns picture \(Image\), name \(Value\)"):
        load_data(path)
    path = write_repository(tmp_path / "no-train", test=columns)
    with pytest.raises(DataError, match="has no split train, only test"):
        load_data(path)
    path = write_repository(tmp_path / "leak", train=kvasir_split(DISCS[:3]), validation=kvasir_split(DISCS[2:4]))
    with pytest.raises(DataError, match="'disc-2' is the name of two cases"):
        load_data(path)
    (path / "data" / "train-00000-of-00001.parquet").write_bytes(b"no parquet")
    with pytest.raises(DataError, match="leak: cannot be loaded"):
        load_data(path)


def test_without_a_network_the_hub_gives_up_within_seconds_and_says_what_to_do(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "PROBE_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections and never says a word
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(DataError, match=r"kowndinya23/Kvasir-SEG: the hub .* does not answer.*\(--data PATH\)"):
            load_data("kvasir")
    assert datasets.config.HF_HUB_OFFLINE is False


COMMIT = "c" * 40
HEADERS = {"ETag": '"tag"', "X-Repo-Commit": COMMIT, "X-Error-Code": "EntryNotFound"}


def pages_of(repository: Path, repo: str) -> dict[str, bytes]:
    """What a hub says of a repository with one file."""
    (file,) = repository.glob("data/*.parquet")
    name, api = f"data/{file.name}", f"/api/datasets/{repo}"
    about = json.dumps({"id": repo, "sha": COMMIT, "siblings": [{"rfilename": name}]}).encode()
    folder = {"type": "directory", "path": "data", "size": 0, "oid": "d" * 40}
    entry = {"type": "file", "path": name, "size": file.stat().st_size, "oid": "f" * 40}
    return {
        "/": b"",
        api: about,
        f"{api}/revision/main": about,
        f"{api}/revision/{COMMIT}": about,
        f"{api}/tree/{COMMIT}": json.dumps([folder]).encode(),
        f"{api}/tree/{COMMIT}/data": json.dumps([entry]).encode(),
        f"/datasets/{repo}/resolve/{COMMIT}/{name}": file.read_bytes(),
    }


def test_a_data_set_comes_from_a_hub_and_stays_when_the_hub_is_gone(tmp_path, breast_repository, monkeypatch):
    """The real client against a hub on the loopback, in a process of its own: it reads its address when imported."""
    load = "from medsam_helpers import load_data; data = load_data('breast'); print(data, data.digest)"
    expected = f"breast: 94 train, 10 dev, 26 val {load_data(breast_repository).digest}\n"
    for name in [name for name in os.environ if name.startswith(("HF_", "TRANSFORMERS_"))]:
        monkeypatch.delenv(name)
    pages = pages_of(breast_repository, "nielsr/breast-cancer")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with loopback(lambda asked: Response(pages.get(asked.path), 200 if asked.path in pages else 404, HEADERS)) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub)
        assert python(load) == expected
    assert python(load) == expected, "now from the cache"
