"""The first cell of notebook 00, for hosted notebooks."""

import notebook_rules as rules
import pytest
import yaml
from IPython.core.inputtransformer2 import TransformerManager

CELL = rules.code_cells(rules.read(rules.WRITTEN[0]))[0].source
ADDRESS = CELL.partition('REPOSITORY = "')[2].partition('"')[0]


def test_a_hosted_notebook_without_an_address_asks_for_one(monkeypatch):
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Interactive")
    absent = CELL.replace('find_spec("medsam_helpers")', 'find_spec("not_installed")')
    plain = TransformerManager().transform_cell(absent)  # a magic or shell line would be an error here
    with pytest.raises(AssertionError, match="repository's address"):
        exec(plain.replace(ADDRESS, "https://github.com/OWNER/NAME"), {})
    with pytest.raises(NameError, match="get_ipython"):  # the shell is called once there is an address
        exec(plain.replace(ADDRESS, "https://example.org/a/b"), {})


def test_the_cell_has_the_address_that_the_citation_has():
    known = yaml.safe_load((rules.ROOT / "CITATION.cff").read_text()).get("repository-code")
    assert (known or "https://github.com/OWNER/NAME") == ADDRESS
