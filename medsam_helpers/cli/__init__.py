"""The command line, `medsam`."""

import os
import sys

if not sys.stderr.isatty():  # a bar in a log: a line now and then; tqdm reads this once, when it is imported
    os.environ.setdefault("TQDM_MININTERVAL", "30")
