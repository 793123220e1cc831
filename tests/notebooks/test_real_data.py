"""The notebooks on real images: switched by the environment alone, not a line of them changed."""

import nbformat
import notebook_rules as rules
import pytest
from nbclient import NotebookClient

NOTEBOOKS = rules.ROOT / "notebooks"
SMALL = {"TRAIN_LIMIT": 12, "DEV_LIMIT": 4, "VAL_LIMIT": 8, "EPOCHS": 1}
SWITCHED = [NOTEBOOKS / name for name in rules.SERIES[2:6]]


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.parametrize("path", SWITCHED, ids=[path.stem for path in SWITCHED])
def test_a_notebook_runs_unedited_on_real_images(path, real_data, monkeypatch):
    monkeypatch.setenv("MEDSAM_DATA", str(real_data / "kvasir-seg"))
    for name, value in SMALL.items():
        monkeypatch.setenv(f"MEDSAM_{name}", str(value))
    notebook = nbformat.read(path, as_version=4)
    # Raises where a cell fails. What it shows stays in memory: pictures of real images are never stored.
    NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(NOTEBOOKS)}}).execute()
    (setup,) = (cell for cell in rules.code_cells(notebook) if "config_from_environment(" in cell.source)
    assert "kvasir-seg" in "".join(rules.texts(setup))
