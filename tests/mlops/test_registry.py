"""The registry: a version with its card, aliases, the gate, and the mask that comes back."""

import json
import shutil

import numpy as np
import pytest
from helpers import draw_discs, make_tiny_sam
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from medsam_helpers.data.case import Cases, Dataset
from medsam_helpers.errors import DataError
from medsam_helpers.mlops import registry
from medsam_helpers.mlops.registry import RegistryError, judge, load_model, register, version_of
from medsam_helpers.mlops.tracking import RunTracker
from medsam_helpers.runs.finetune import embed_cases
from medsam_helpers.sam.embeddings import EmbeddingStore
from medsam_helpers.sam.loading import load_sam, model_info
from medsam_helpers.sam.segmenter import Segmenter
from medsam_helpers.sam.tuned import part_state, save_decoder
from medsam_helpers.training.loop import fit
from medsam_helpers.training.recipes import Recipe

DISCS = draw_discs(16, seed=9)
DATA = Dataset("discs", DISCS[:3], DISCS[3:5], DISCS[5:], licence="nobody's", citation="none")


@pytest.fixture
def client(mlflow_server, cache):
    return MlflowClient(mlflow_server.uri)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The folder of a tiny model, as a base of decoders."""
    folder = tmp_path_factory.mktemp("base")
    make_tiny_sam().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def trained(base):
    """The base after some epochs on discs, which it segments better then."""
    segmenter, folder = Segmenter(load_sam(base, show_progress=False), "cpu", precision="fp32"), base / "trained"
    segmenter.store, others = EmbeddingStore.for_model(segmenter.info, "fp32", base / "embeddings"), draw_discs(10)
    embed_cases(segmenter, others, show_progress=False)
    recipe = Recipe(name="test", lr=3e-3, epochs=15, batch=2, precision="fp32", jitter_1024=0)
    fit(segmenter.model, others[:7], others[7:], recipe, segmenter.store, folder, show_progress=False)
    return segmenter.model


def new_version(client, folder, base, name, model):
    """Save a model's decoder, log it, register it."""
    card = {"base": "tiny", "base_path": str(base), "data_digest": DATA.digest, "precision": "fp32"}
    card["base_digest"] = model_info(load_sam(base, show_progress=False)).base_digest
    with RunTracker(folder, "registered", uri=client.tracking_uri, hardware_s=0) as tracker:
        save_decoder(part_state(model, ["mask_decoder"]), folder, card)
        (folder / "README.md").write_text(f"# The decoder {folder.name}\n")
        tracker.log_data(DATA)
        for file in registry.CHECKPOINT_FILES:
            tracker.log_artifact(file, registry.CHECKPOINT)
        run_id = tracker.run_id()
    return register(client, name, run_id, folder)


def test_the_version_carries_its_card_and_gives_the_same_mask_back(client, tmp_path, base, trained):
    version = new_version(client, tmp_path / "one", base, "card", trained)
    assert version_of(client, "card", "challenger") == version.version
    stored = client.get_model_version("card", version.version)
    assert stored.description == "# The decoder one\n"
    assert (stored.tags["base"], stored.tags["data_digest"]) == ("tiny", DATA.digest)
    client.set_registered_model_alias("card", "champion", version.version)
    shutil.rmtree(tmp_path / "one")  # what comes back comes from the registry
    models = (
        Segmenter(trained, precision="fp32"),
        load_model(client, "card"),
        load_model(client, "card", zero_shot=True),
    )
    boxes = np.array([[10, 10, 50, 50]])
    before, after, untrained = (model.predict(DATA.val[0].image, boxes=boxes).masks for model in models)
    assert np.array_equal(before, after)
    assert not np.array_equal(before, untrained)
    with pytest.raises(MlflowException):
        load_model(client, "card", "nobody")
    with pytest.raises(RegistryError, match="log the checkpoint's folder first"):
        register(client, "card", client.create_run("0").info.run_id, tmp_path)


def test_the_gate_promotes_what_is_better_and_nothing_else(client, tmp_path, base, trained):
    untrained = load_sam(base, show_progress=False)
    for name, model in (("first", trained), ("equal", trained), ("worse", untrained)):
        new_version(client, tmp_path / name, base, "gate", model)

    first = judge(client, "gate", DATA, "exact", version="1")
    assert (first.promoted, first.other, first.n) == (True, "zero-shot", len(DATA.val))
    assert first.gain.low > 0
    equal = judge(client, "gate", DATA, "exact", version="2")
    assert (equal.gain, equal.promoted) == ((0, 0, 0), False), "not worse is not better"
    worse = judge(client, "gate", DATA, "exact")
    assert (worse.version, worse.other, worse.promoted) == ("3", "1", False)
    assert worse.gain.high < 0
    assert version_of(client, "gate", "champion") == "1"
    noted = json.loads(client.get_model_version("gate", "3").tags["medsam.gate"])
    assert (noted["promoted"], noted["other"]) == (False, "1")
    with pytest.raises(RegistryError, match="is the champion already"):
        judge(client, "gate", DATA, "exact", version="1")

    client.set_registered_model_alias("gate", "champion", "3")
    better = judge(client, "gate", DATA, "exact", version="2")
    assert (better.other, better.promoted) == ("3", True)
    assert version_of(client, "gate", "champion") == "2"
    assert str(better).endswith("against version 3 on 11 images: promoted")


def test_the_gate_refuses_images_that_the_model_was_selected_on(client, tmp_path, base, trained):
    new_version(client, tmp_path / "one", base, "leak", trained)
    dev, val = DATA.dev.names[0], DATA.val.names[0]
    leaking = Dataset("l", DATA.train, DATA.dev, Cases([val, dev], DISCS.load), licence="", citation="")
    with pytest.raises(DataError, match=f"trained or selected on 1 of these images .{dev}."):
        judge(client, "leak", leaking, "exact")
    assert version_of(client, "leak", "champion") is None
