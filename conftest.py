"""What tests and notebooks share: where the real images are, if they are."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real images, `MEDSAM_REAL_DATA` or `../shared/data`; skips where it is absent."""
    default = Path(__file__).resolve().parent.parent / "shared" / "data"
    folder = Path(os.environ.get("MEDSAM_REAL_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no real images at {folder}; MEDSAM_REAL_DATA may name another folder")
    return folder
