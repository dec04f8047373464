"""Where a run's metrics go: one JSON object a line, and TensorBoard. Refuses to compute any."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from torch.utils.tensorboard import SummaryWriter

from training.files import write_text

METRICS_FILE: Final = "metrics.jsonl"


class Records:
    """Appends records of a run; `step` is the number of updates.

    Args:
        folder: of the run.
        resume_at: updates of the checkpoint the run goes on from, -1 where there is none; later records, which the lost
            part of a killed run wrote, are dropped so that every step is recorded once.
    """

    def __init__(self, folder: Path, resume_at: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / METRICS_FILE
        _keep_until(path, resume_at)
        self._lines = path.open("a", encoding="utf-8")
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=resume_at + 1)

    def write(self, kind: str, step: int, values: dict[str, float]) -> None:
        """Record `values` under ``kind`` at `step`, and flush: a killed run loses nothing it has said."""
        self._lines.write(json.dumps({"kind": kind, "step": step, **values}, sort_keys=True) + "\n")
        self._lines.flush()
        for name, value in values.items():
            self._board.add_scalar(f"{kind}/{name}", value, step)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._lines.close()
        self._board.close()


def _keep_until(path: Path, step: int) -> None:
    """Drop records after `step`, and a last line that a kill cut in two."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue  # the line being written when the run was killed
        if record["step"] <= step:
            kept.append(line)
    write_text(path, "".join(f"{line}\n" for line in kept))
