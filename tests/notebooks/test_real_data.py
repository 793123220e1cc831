"""The notebooks on real images: switched by the environment alone, not a line of them changed."""

import notebook_rules as rules
import pytest
from nbclient import NotebookClient

SMALL = {"TRAIN_LIMIT": "12", "DEV_LIMIT": "4", "VAL_LIMIT": "8", "EPOCHS": "1"}


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.parametrize("path", rules.WRITTEN[2:6], ids=lambda path: path.stem)
def test_a_notebook_runs_unedited_on_real_images(path, real_data, monkeypatch):
    for name, value in {**SMALL, "DATA": str(real_data / "kvasir-seg")}.items():
        monkeypatch.setenv(f"MEDSAM_{name}", value)
    notebook = rules.read(path)
    # Raises where a cell fails. What it shows stays in memory: pictures of real images are never stored.
    NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(path.parent)}}).execute()
    (setup,) = (cell for cell in rules.code_cells(notebook) if "config_from_environment(" in cell.source)
    assert "kvasir-seg" in "".join(rules.texts(setup))
