"""`python -m medsam_helpers` is `medsam`."""

import sys

from medsam_helpers.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
