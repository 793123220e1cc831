"""Write `checkpoints/NAME/` from the folder of a finished run.

    python tools/release_checkpoint.py RUN_FOLDER kvasir-polyps --source kvasir

`medsam reproduce` names the folder of each run, under `runs/` of the cache, in its run card.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from medsam_helpers.errors import MedsamError
from medsam_helpers.runs.release import release


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
