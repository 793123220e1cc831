"""What tests and notebooks share: where the real images are, if they are."""

import os
import tempfile
from pathlib import Path

import matplotlib.font_manager  # noqa: F401
import pytest

# The first import of Matplotlib's fonts on a machine makes their cache, and says so when that takes long: here, and not
# in the output of some notebook's cell.
# Notebook kernels inherit this environment. The stored outputs were computed in fp32, which gives the same two decimals
# with bf16 hardware and without.
os.environ.setdefault("MEDSAM_PRECISION", "fp32")
# Test files side by side (`make test`) share the processors. Were each to start a thread on all of them, the threads
# would spend their time on waiting for one another.
if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0")):
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))
# A backend named here (Agg, on many servers) would keep the kernels from drawing into the notebook.
os.environ.pop("MPLBACKEND", None)


def pytest_configure(config: pytest.Config) -> None:
    """Whatever the tests start writes its temporary files into one folder that goes with the session.

    nbval kills its kernels, and a killed kernel removes nothing: a notebook's runs would stay in /tmp for good.
    """
    if not hasattr(config, "workerinput"):
        scratch = tempfile.TemporaryDirectory(prefix="medsam-", ignore_cleanup_errors=True)
        config.add_cleanup(scratch.cleanup)
        os.environ["TMPDIR"] = scratch.name


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Notebook 00 goes first: it trains the model that 04 to 06 read, and beside it they would only wait."""
    items.sort(key=lambda item: item.path.name != "00_start_here.ipynb")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real images, `MEDSAM_REAL_DATA` or `../shared/data`; skips where it is absent."""
    default = Path(__file__).resolve().parent.parent / "shared" / "data"
    folder = Path(os.environ.get("MEDSAM_REAL_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no real images at {folder}; MEDSAM_REAL_DATA may name another folder")
    return folder
