"""The notebooks of `examples/` run from their first cell to their last, and show what they promise."""

import re
from pathlib import Path
from typing import Any

import pytest

from given_data import ROOT

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

#: For each notebook what its outputs must show, in this order.
SHOWN = {
    "compare.ipynb": [
        r"Recording\(",
        r"<table>.*IPIs",
        "image/png",
        "image/png",
        r"'linux-6.18', \d+",
        r"<table>.*matched",
    ],
    "check.ipynb": [r"<table>.*CPU2 \(user 0\)", "folio_remove_rmap", "<p>linux-6.18: safe", "\\{", "R04"],
}


def shown(cell: Any) -> str:  # noqa: ANN401 - a notebook tells no types
    """What a cell shows, the richest form first."""
    texts = []
    for output in cell.outputs:
        data = output.get("data", {})
        texts.append("image/png" if "image/png" in data else data.get("text/html") or data.get("text/plain", ""))
        texts.append(output.get("text", ""))
    return " ".join(texts)


def test_every_notebook_is_run() -> None:
    assert {path.name for path in (ROOT / "examples").glob("*.ipynb")} == set(SHOWN)


@pytest.mark.filterwarnings("ignore")  # those of the client and the kernel's protocol
@pytest.mark.parametrize("name", SHOWN)
def test_a_notebook_runs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    folder = ROOT / "examples"
    notebook = nbformat.read(Path(folder / name), as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells), "outputs are not kept"
    nbclient.NotebookClient(notebook, timeout=50, resources={"metadata": {"path": str(folder)}}).execute()
    outputs = " ".join(shown(cell) for cell in notebook.cells if cell.cell_type == "code")
    at = 0
    for pattern in SHOWN[name]:
        found = re.compile(pattern, re.DOTALL).search(outputs, at)
        assert found, f"{pattern} is not shown after character {at}"
        at = found.end()
