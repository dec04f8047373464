"""How far a run has come, on a terminal and in a log."""

from __future__ import annotations

import io

from rich.console import Console

from training.runs.progress import RunProgress


class Clock:
    """Seconds that pass when told."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_log_gets_a_line_every_five_percent_with_episodes_and_time_left() -> None:
    written, clock = io.StringIO(), Clock()
    with RunProgress(Console(file=written, width=20), clock) as progress:
        for updates in range(0, 1001, 10):
            progress.show("seed 1", updates, 1000, 3 * updates, "reward -0.1")
            clock.now += 6.0
    lines = written.getvalue().splitlines()
    assert len(lines) == 20
    assert lines[0] == "seed 1: 50 of 1000 updates (5 %), 150 episodes, 9.5 minutes left, reward -0.1"
    assert lines[9] == "seed 1: 500 of 1000 updates (50 %), 1500 episodes, 5.0 minutes left, reward -0.1"
    assert lines[-1].startswith("seed 1: 1000 of 1000 updates (100 %), 3000 episodes, 0.0 minutes left")


def test_what_came_before_this_process_counts_as_done_but_not_for_the_pace() -> None:
    written, clock = io.StringIO(), Clock()
    with RunProgress(Console(file=written), clock) as progress:
        progress.show("training", 800, 1000, 80)
        clock.now += 60.0
        progress.show("training", 900, 1000, 90)
    assert written.getvalue() == "training: 900 of 1000 updates (90 %), 90 episodes, 1.0 minutes left\n"


def test_a_terminal_gets_a_bar_for_each_run() -> None:
    written = io.StringIO()
    with RunProgress(Console(file=written, force_terminal=True, width=160)) as progress:
        progress.show("seed 1", 100, 1000, 300)
        progress.show("seed 2", 700, 1000, 2100, "reward -0.2")
    text = written.getvalue()
    for expected in ("seed 1", "100/1000", "300 episodes", "seed 2", "700/1000", "2100 episodes", "reward -0.2"):
        assert expected in text
