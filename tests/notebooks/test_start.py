"""What notebook 00 promises beside its outputs: the cell for hosted notebooks."""

import nbformat
import notebook_rules as rules
import pytest
import yaml
from IPython.core.inputtransformer2 import TransformerManager


@pytest.fixture(scope="module")
def cell():
    """The first code cell of the notebook."""
    return rules.code_cells(nbformat.read(rules.ROOT / "notebooks" / "00_start_here.ipynb", as_version=4))[0].source


def run(source):
    """Run a cell, a magic or shell line of which would be an error here."""
    exec(TransformerManager().transform_cell(source), {})


def test_on_a_machine_of_ones_own_nothing_is_installed(cell, capsys, monkeypatch):
    monkeypatch.delenv("KAGGLE_KERNEL_RUN_TYPE", raising=False)
    run(cell)
    assert "nothing to install" in capsys.readouterr().out


def test_a_hosted_notebook_without_an_address_asks_for_one(cell, monkeypatch):
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Interactive")
    absent = cell.replace('find_spec("medsam_helpers")', 'find_spec("not_installed")')
    with pytest.raises(AssertionError, match="repository's address"):
        run(absent.replace(address(cell), "https://github.com/OWNER/NAME"))
    with pytest.raises(NameError, match="get_ipython"):  # the shell is called once there is an address
        run(absent.replace(address(cell), "https://example.org/a/b"))


def address(cell):
    return cell.partition('REPOSITORY = "')[2].partition('"')[0]


def test_the_cell_has_the_address_that_the_citation_has(cell):
    known = yaml.safe_load((rules.ROOT / "CITATION.cff").read_text()).get("repository-code")
    assert address(cell) == (known or "https://github.com/OWNER/NAME")
