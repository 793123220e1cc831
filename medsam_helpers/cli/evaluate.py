"""`medsam evaluate`."""

import time
from pathlib import Path
from typing import ClassVar

from medsam_helpers.cli.parser import Command, OfModel, Result, tell_of
from medsam_helpers.data.case import SPLITS, SplitName
from medsam_helpers.data.loading import load_data
from medsam_helpers.errors import CheckpointError, ConfigError, DataError, some
from medsam_helpers.files import check_output_dir
from medsam_helpers.prompts import read_prompt
from medsam_helpers.runs.settings import DataSettings, check_names
from medsam_helpers.sam.checkpoints import SPECIALISTS
from medsam_helpers.settings import BoxMode


class Evaluate(Command, OfModel, DataSettings):
    """Score a model or a fine-tuned decoder, an image a row."""

    EXAMPLE: ClassVar[str] = "--checkpoint runs/first --data path/to/folder --prompt j20"
    REQUIRED: ClassVar[tuple[str, ...]] = ("data",)

    split: SplitName = "val"
    """Of the data."""
    prompt: str = "j20"
    """Exact boxes, "exact"; "jN", their sides moved by up to N pixels of a model space of 1024; one of both with
    "+centre", a click in the middle too; "clicks:N" of a simulated user; or "none"."""
    box_mode: BoxMode | None = None
    """One box round everything, or one a component; default: as the checkpoint was trained, else union."""
    output: Path = Path("runs/evaluate")
    """Folder for metrics.csv and run_card.json."""

    def run(self, line: str) -> Result:
        started = time.perf_counter()
        clicks = read_prompt(self.prompt).clicks
        if clicks and self.tta:
            raise ConfigError("clicks refine the answer to one view of the image: leave out --tta")
        check_names(model=self.model, checkpoint=self.folder, data=self.data)
        output = self.output.expanduser()
        check_output_dir(output, mark="metrics.csv", never="decoder.safetensors")
        # Pixels of the other splits are of no use here: a limit of 0 leaves them unread.
        unread = {f"{name}_limit": 0 for name in SPLITS if name != self.split}
        dataset = load_data(self.data, **self.selection() | unread)
        cases = getattr(dataset, self.split)
        if not len(cases):
            raise DataError(f"{self.data}: the split {self.split} is empty: choose another --split, or raise its limit")
        segmenter = self.segmenter()

        from medsam_helpers.data.views import views_of
        from medsam_helpers.evaluation.evaluate import evaluate, false_positives
        from medsam_helpers.evaluation.intervals import Interval
        from medsam_helpers.evaluation.predictors import WITH_TTA
        from medsam_helpers.evaluation.tables import METRICS, paired_gain, pooled_dice, summarise
        from medsam_helpers.runs.card import write_run_card
        from medsam_helpers.runs.embed import embed_cases
        from medsam_helpers.runs.findings import click_figures
        from medsam_helpers.runs.folder import name_left_out, summary_text
        from medsam_helpers.runs.recorded import write_table
        from medsam_helpers.runs.seen import read_seen, seen_among
        from medsam_helpers.sam.segmenter import Segmenter
        from medsam_helpers.sam.tuned import base_of

        model = "tuned" if self.checkpoint else "zero-shot"
        box_mode = self.box_mode or self.trained_with().get("box_mode", "union")
        before, base = f"zero-shot{WITH_TTA * self.tta}", None
        if self.folder and (place := base_of(self.folder)) not in SPECIALISTS:
            base = Segmenter.load(place, precision=segmenter.precision, tta=self.tta)
        models = ({before: base} if base else {}) | {model: segmenter}
        for each in models.values():  # into one store for both, unless the encoder was trained too
            embed_cases(each, views_of(cases, each.views))
        table = evaluate(cases, models, prompts=[self.prompt], box_mode=box_mode, group_of=dataset.group_of)
        last = table[table["prompt"] == self.prompt]  # of clicks the last one
        own = last[last["model"] == model]
        figures: Result = {name: round(own[name].mean(), 6) for name in METRICS}
        (means,) = summarise(own).itertuples()
        figures |= {"dice_ci95": Interval(means.dice, means.dice_low, means.dice_high).for_json()[1:], "n": len(own)}
        figures["dice_pooled"] = round(pooled_dice(own), 6)
        if base:
            figures["zero_shot_dice"] = round(last.loc[last["model"] == before, "dice"].mean(), 6)
            figures["gain"], *figures["gain_ci95"] = paired_gain(last, self.prompt, model, before).for_json()
        if clicks:
            figures |= click_figures(table, model)
        if self.folder:
            try:
                seen = seen_among(cases, read_seen(self.folder))
                told = f"{len(seen)} of these images were trained or selected on: {some(seen)}" if seen else ""
                figures["seen_before"] = len(seen)
            except CheckpointError as error:
                told = f"whether these images are new to it is unknown: {error}"
            print(told, end="\n" * bool(told))
        if self.prompt == "none" or not segmenter.needs_prompt:
            table.attrs |= (found := false_positives(cases, segmenter))
            figures |= found
        figures |= {"left_out": name_left_out(dataset, table, self.data), "missed": table.attrs["missed"]}
        write_table(table, output / "metrics.csv")
        card: Result = {"model": self.folder.resolve().name if self.folder else segmenter.info.name}
        card |= {"split": self.split, "prompt": self.prompt, "box_mode": box_mode, "tta": self.tta}
        card |= {"precision": segmenter.precision, "metrics": figures, "seconds": time.perf_counter() - started}
        write_run_card(output / "run_card.json", command=line, data_digest=cases.digest, **card)
        tell_of(figures["left_out"], self.model)
        about = f"{dataset.name}, {self.split}: {len(own)} cases"
        print(summary_text(table, f"{self.folder or self.model} on {self.data}", about))
        return figures
