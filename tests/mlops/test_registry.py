"""The registry: a version with its card, aliases, the gate, and the mask that comes back."""

import json
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from helpers import draw_discs, embedded, make_tiny_sam, save_images
from mlflow.exceptions import MlflowException

from medsam_helpers.data.case import Case, Cases, Dataset
from medsam_helpers.errors import ConfigError, DataError
from medsam_helpers.mlops import gate, registry
from medsam_helpers.mlops.gate import judge, unjudged, verdicts
from medsam_helpers.mlops.registry import RegistryError, load_model, register, version_of
from medsam_helpers.mlops.tracking import RunTracker
from medsam_helpers.runs.seen import write_seen
from medsam_helpers.sam.loading import load_sam, model_info
from medsam_helpers.sam.segmenter import Segmenter
from medsam_helpers.sam.tuned import part_state, save_decoder
from medsam_helpers.training.loop import fit
from medsam_helpers.training.recipes import Recipe

pytestmark = pytest.mark.usefixtures("cache")

DISCS = draw_discs(16, seed=9)
DATA = Dataset("discs", DISCS[:3], DISCS[3:5], DISCS[5:], licence="nobody's", citation="none")
FEW = {"prompt": "exact", "fewest": 11}


def scored_on(*cases):
    """A data set of these cases to be judged on."""
    known = {case.name: case for case in cases}
    return Dataset("v", Cases([], None), Cases([], None), Cases(list(known), known.__getitem__), "", "")


def told(main, arguments, client, monkeypatch, capsys):
    """Exit status, output and error stream of a command."""
    monkeypatch.setattr(sys, "argv", arguments)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", client.tracking_uri)
    try:
        main()
    except SystemExit as end:
        return end.code, *capsys.readouterr()
    return 0, *capsys.readouterr()


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The folder of a tiny model, as a base of decoders."""
    folder = tmp_path_factory.mktemp("base")
    make_tiny_sam().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def trained(base):
    """The base after some epochs on discs, which it segments better then."""
    model, others = load_sam(base, show_progress=False), draw_discs(10)
    store = embedded(model, others, base / "embeddings").store
    recipe = Recipe(name="test", lr=3e-3, epochs=15, batch=2, precision="fp32", jitter_1024=0)
    fit(model, others[:7], others[7:], recipe, store, base / "trained", show_progress=False)
    return model


def new_version(client, folder, base, name, model):
    """Save a model's decoder, log it, register it."""
    card = {"base": "tiny", "base_path": str(base), "data_digest": DATA.digest, "precision": "fp32"}
    card["base_digest"] = model_info(load_sam(base, show_progress=False)).base_digest
    with RunTracker(folder, "registered", uri=client.tracking_uri, hardware_s=0) as tracker:
        save_decoder(part_state(model, ["mask_decoder"]), folder, card)
        (folder / "README.md").write_text(f"# The decoder {folder.name}\n")
        write_seen(folder, DATA)
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
    tuned, zero_shot = (load_model(client, "card", zero_shot=asked) for asked in (False, True))
    models, boxes = (Segmenter(trained, precision="fp32"), tuned, zero_shot), np.array([[10, 10, 50, 50]])
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

    first = judge(client, "gate", DATA, version="1", **FEW)
    assert (first.promoted, first.other, first.n) == (True, "zero-shot", len(DATA.val))
    assert first.gain.low > 0
    equal = judge(client, "gate", DATA, version="2", **FEW)
    assert (equal.gain, equal.promoted) == ((0, 0, 0), False), "not worse is not better"
    worse = judge(client, "gate", DATA, **FEW)
    assert (worse.version, worse.other, worse.promoted) == ("3", "1", False)
    assert worse.gain.high < 0
    assert version_of(client, "gate", "champion") == "1"
    with pytest.raises(RegistryError, match="is the champion already"):
        judge(client, "gate", DATA, version="1", **FEW)

    client.set_registered_model_alias("gate", "champion", "3")
    better = judge(client, "gate", DATA, version="2", **FEW)
    assert (better.other, better.promoted) == ("3", True)
    assert version_of(client, "gate", "champion") == "2"
    assert str(better).endswith("against version 3 on 11 images: promoted, verdict 2")
    noted = [(one.number, one.other, one.promoted) for one in verdicts(client, "gate", "2")]
    assert noted == [(1, "1", False), (2, "3", True)]
    assert {one.data for one in verdicts(client, "gate", "2")} == {f"discs {DATA.val.digest[:16]}"}


def test_a_promotion_takes_enough_different_images(client, tmp_path, base, trained):
    new_version(client, tmp_path / "one", base, "few", trained)
    with pytest.raises(DataError, match=r"11 different new images .* too few .*: take 30"):
        judge(client, "few", DATA)
    (case,) = DATA.val[:1]
    names = scored_on(*(Case(f"copy-{number}", case.image, case.mask) for number in range(40)))
    with pytest.raises(DataError, match=r"^1 different new images"):
        judge(client, "few", names)
    empty = scored_on(*(Case(name, DISCS[5].image, np.zeros_like(DISCS[5].mask)) for name in ("a", "b")))
    with pytest.raises(DataError, match=r"^0 different new images with a lesion"):
        judge(client, "few", empty)
    assert version_of(client, "few", "champion") is None
    assert verdicts(client, "few", "1") == []


def test_judges_at_once_meet_each_other_s_champion(client, tmp_path, base, trained):
    for number in range(4):
        new_version(client, tmp_path / str(number), base, "race", trained)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda version: judge(client, "race", DATA, version=version, **FEW), "1234"))
    (winner,) = [verdict for verdict in found if verdict.promoted]
    assert winner.other == "zero-shot"
    assert {verdict.other for verdict in found} == {"zero-shot", winner.version}
    assert version_of(client, "race", "champion") == winner.version


def test_what_was_judged_on_these_images_is_not_judged_once_more(client, tmp_path, base, trained, monkeypatch, capsys):
    def waiting():
        return [(model.name, model.version) for model in unjudged(client)]

    for name in ("one", "other"):
        new_version(client, tmp_path / name, base, "once", trained)
    assert ("once", "2") in waiting(), "the challenger, and no version that is none any more"
    assert ("once", "1") not in waiting()
    client.set_registered_model_alias("once", "champion", "2")
    assert ("once", "2") not in waiting(), "the champion waits for nothing"
    client.delete_registered_model_alias("once", "champion")
    few = scored_on(*DISCS[5:9], DATA.dev[0])
    known = judge(client, "once", few, "exact", fewest=4, drop_seen=True)
    with monkeypatch.context() as patch:
        patch.setattr(gate, "evaluate", None)
        assert str(judge(client, "once", few, "exact", fewest=4, once=True)) == str(known)
    assert ("once", "2") not in waiting()
    assert judge(client, "once", DATA, **FEW, once=True).promoted, "other images are judged"
    assert judge(client, "once", DATA, **FEW, once=True).number == 2, "the champion too has its verdict"
    command = ["gate", "--once", f"--data={tmp_path / 'discs'}", "--prompt=exact", "--fewest=1", "--version=1"]
    save_images(DISCS[4:8], tmp_path / "discs", n_train=1)
    first, again = (told(gate.main, [*command, "--", "once"], client, monkeypatch, capsys) for _ in range(2))
    assert first[:2] == again[:2]
    assert json.loads(first[1].splitlines()[1])["version"] == "1"


def test_an_error_of_the_gate_is_one_line_and_a_name_is_no_option(client, tmp_path, monkeypatch, capsys):
    reasons = {"-h": "'-h' is no name for a registered model", "no one": "'no one' is no name"}
    for name, reason in (reasons | {"nobody": "Registered Model with name=nobody not found"}).items():
        command = ["gate", "--data=phantom-ultrasound", "--", name]
        status, out, error = told(gate.main, command, client, monkeypatch, capsys)
        assert (status, out, error.count("\n")) == (2, "", 1)
        assert reason in error
    with pytest.raises(ConfigError, match="'a\\\\n' is no name"):
        register(client, "a\n", "any", tmp_path)


def test_a_promotion_that_somebody_else_was_quicker_with_is_not_noted(client, tmp_path, base, trained, monkeypatch):
    for name in ("one", "other"):
        new_version(client, tmp_path / name, base, "quick", trained)
    evaluate = gate.evaluate

    def meanwhile(*args, **options):
        client.set_registered_model_alias("quick", "champion", "2")
        return evaluate(*args, **options)

    monkeypatch.setattr(gate, "evaluate", meanwhile)
    with pytest.raises(RegistryError, match="changed while version 1 was judged"):
        judge(client, "quick", DATA, version="1", **FEW)
    assert version_of(client, "quick", "champion") == "2"
    assert verdicts(client, "quick", "1") == []


def test_a_champion_that_is_gone_is_said_and_nothing_takes_its_place(client, tmp_path, base, trained):
    for name in ("one", "other"):
        new_version(client, tmp_path / name, base, "gone", trained)
    assert judge(client, "gone", DATA, version="1", **FEW).promoted
    client.delete_registered_model_alias("gone", "champion")
    with pytest.raises(RegistryError, match="version 1 was promoted, and no version is the champion now: give the"):
        judge(client, "gone", DATA, version="2", **FEW)
    client.delete_model_version("gone", "1")
    with pytest.raises(RegistryError, match="no version is the champion now"):
        judge(client, "gone", DATA, version="2", **FEW)
    client.delete_registered_model_tag("gone", "medsam.champion")  # as the message says
    assert judge(client, "gone", DATA, version="2", **FEW).other == "zero-shot"


def test_neither_an_unknown_version_nor_a_decoder_changed_in_the_store_is_loaded(client, tmp_path, base, trained):
    version = new_version(client, tmp_path / "one", base, "swap", trained)
    other = tmp_path / "other"
    untrained = part_state(load_sam(base, show_progress=False), ["mask_decoder"])
    save_decoder(untrained, other, {"base": "", "base_digest": ""})
    client.log_artifact(version.run_id, other / "decoder.safetensors", "checkpoint")
    with pytest.raises(RegistryError, match="version 1 in the store is not the one that was registered"):
        load_model(client, "swap", "1")
    with pytest.raises(RegistryError, match="no version '01'"):
        load_model(client, "swap", "01")


def test_the_gate_refuses_images_that_the_model_was_selected_on(client, tmp_path, base, trained):
    new_version(client, tmp_path / "one", base, "leak", trained)
    dev = DATA.dev[0]
    changed = dev.image.copy()
    changed[0, 0] ^= 255  # one pixel of another value: the same picture all the same
    for seen in (dev, Case(dev.name, changed, dev.mask)):
        with pytest.raises(DataError, match=f"trained or selected on 1 of these images .{dev.name}."):
            judge(client, "leak", scored_on(*DATA.val, seen), **FEW)
    assert version_of(client, "leak", "champion") is None
    left = judge(client, "leak", scored_on(*DATA.val, dev), **FEW, drop_seen=True)
    assert (left.n, left.seen) == (11, 1)
    assert "on 11 images (1 seen before left out)" in str(left)
