"""Write `checkpoints/NAME/` from the folder of a finished run: half precision, and a card with intended use and limits.

    python tools/release_checkpoint.py RUN_FOLDER kvasir-polyps --source kvasir

`medsam reproduce` names the folder of each run, under `runs/` of the cache, in its run card.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from safetensors.torch import load_file

from medsam_helpers.data.hub import HUB_SOURCES
from medsam_helpers.errors import CheckpointError, ConfigError, MedsamError
from medsam_helpers.files import RELEASED
from medsam_helpers.runs.folder import headline
from medsam_helpers.runs.model_card import write_model_card
from medsam_helpers.runs.recorded import read_table
from medsam_helpers.runs.seen import read_seen
from medsam_helpers.sam.tuned import DECODER_FILE, SEEN_FILE, read_card, save_decoder

LIMITS = """
## Intended use and limits

For teaching and research: to try a fine-tuned model without training one, and as a start for one's own data. A prompt
is of one lesion, given by a person; a box round healthy tissue, or a click on it, still gives a mask. It was scored on
images of the same source as it was trained on: other centres, devices, organs and patients were not measured, and
nothing is known of how it fares for groups of patients. The figures are means; single masks can be far off. **Not a
medical device, and not for clinical use.**

The weights are stored in half precision and are computed with in float32.
"""


def release(run: Path, name: str, source: str | None = None, root: Path = RELEASED) -> Path:
    """The folder `root/NAME`, with `decoder.safetensors` in fp16, its cards and what it has seen written to it.

    Args:
        run: folder of a finished run, scored on val.
        name: by which it is found afterwards, `medsam predict --checkpoint NAME`.
        source: a name of `data.hub.HUB_SOURCES` for its terms, where the run read the same images from a folder.
        root: where the folder is made.
    Raises:
        CheckpointError: no finished run, scored on dev only, without a list of what it has seen, or a weight that
            fp16 cannot hold.
        ConfigError: a name that is a path, or an unknown source.
    """
    if Path(name).name != name or name in ("", ".", ".."):
        raise ConfigError(f"{name!r} is no name for a folder: use letters, digits and hyphens")
    if source is not None and source not in HUB_SOURCES:
        raise ConfigError(f"no data source {source!r}: use {', '.join(HUB_SOURCES)}")
    card = read_card(run)
    if not (run / "README.md").is_file() or card.get("split", "val") != "val":
        raise CheckpointError(f"{run}: not a finished run that was scored on val")
    if source:
        known = HUB_SOURCES[source]
        card["data"] = {"name": known["repo"].split("/")[1], "licence": known["licence"], "citation": known["citation"]}
    card |= {"base_path": None, "stored": "float16"}
    card["metrics"] |= headline(read_table(run / "metrics.csv"), card["metrics"]["prompt"])  # to every digit
    state = {key: weight.half() for key, weight in load_file(run / DECODER_FILE).items()}
    if large := [key for key, weight in state.items() if not weight.isfinite().all()]:
        raise CheckpointError(f"{run / DECODER_FILE}: {large[0]} holds values that half precision cannot")
    seen = read_seen(run)
    folder = save_decoder(state, root / name, card)
    seen.to_csv(folder / SEEN_FILE, index=False)
    write_model_card(folder / "README.md", card, name, LIMITS)
    return folder


def main() -> int:
    """Read the arguments, write the checkpoint, and say where."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    parser.add_argument("--source", help="kvasir or breast: its terms and citation go into the card")
    args = parser.parse_args()
    try:
        folder = release(args.run, args.name, args.source)
    except MedsamError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"written to checkpoints/{folder.name}: {', '.join(sorted(path.name for path in folder.iterdir()))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
