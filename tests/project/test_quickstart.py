"""The notebook as it is committed; `test_fresh_clone` runs it on a finished chain."""

import nbformat

from tests.conftest import ROOT

NOTEBOOK = ROOT / "docs/quickstart.ipynb"


def test_it_is_committed_without_outputs() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(code) > 5
    for cell in notebook.cells:
        assert cell.metadata == {}, cell.id
    for cell in code:
        assert (cell.outputs, cell.execution_count) == ([], None), cell.id
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert notebook.metadata.kernelspec.name == "python3"
