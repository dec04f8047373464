"""The notebook runs from top to bottom within a minute of CPU time, and shows what its text says."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.control_plane.toolchain import REPOSITORY

NOTEBOOK = REPOSITORY / "docs" / "first-policy.ipynb"
LONGEST_CPU_S = 60.0


def outputs(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    return [output for cell in notebook["cells"] for output in cell.get("outputs", ())]


def rates(notebook: dict[str, Any]) -> dict[str, float]:
    """What each contestant misses, in percent."""
    text = "".join("".join(output.get("text", ())) for output in outputs(notebook))
    return {name: float(rate) for name, rate in re.findall(r"^([\w -]+): ([\d.]+) % \(", text, re.MULTILINE)}


def check(notebook: dict[str, Any]) -> None:
    missed = rates(notebook)
    assert list(missed) == ["kube-default", "untrained", "expected-speed", "trained here", "shipped policy"]
    assert missed["trained here"] < 0.5 * missed["untrained"]
    assert missed["shipped policy"] < missed["expected-speed"] < missed["kube-default"]
    assert [output for output in outputs(notebook) if output["output_type"] == "error"] == []
    assert any("image/png" in output.get("data", {}) for output in outputs(notebook))


def cpu_of_children() -> float:
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def test_the_notebook_runs_within_a_minute_and_training_helps(tmp_path: Path) -> None:
    before = cpu_of_children()
    folders = {name: str(tmp_path / name) for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR")}
    environment = {**os.environ, **folders, "PYTHONPATH": str(REPOSITORY), "MPLCONFIGDIR": str(tmp_path / "matplotlib")}
    command = (str(Path(sys.executable).with_name("jupyter-execute")), f"--output={tmp_path / 'done'}", str(NOTEBOOK))
    subprocess.run(command, check=True, capture_output=True, env=environment, cwd=tmp_path)
    check(json.loads((tmp_path / "done.ipynb").read_text(encoding="utf-8")))
    assert cpu_of_children() - before < LONGEST_CPU_S


def test_the_committed_outputs_show_the_same() -> None:
    committed = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    check(committed)
    assert {cell["execution_count"] for cell in committed["cells"] if cell["cell_type"] == "code"} == {1, 2, 3, 4}
