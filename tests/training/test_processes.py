"""Tasks in processes: results by key, failures that stay with their task, and nothing left behind."""

from __future__ import annotations

import os
from collections.abc import Iterable

import pytest

from policy.errors import BundleError
from training.processes import THREAD_VARIABLES, Failure, one_thread_each, run_in_processes


def work(task: str) -> tuple[str, int, str | None]:
    """Fail as the task says, or tell who did it and what it sees."""
    if task == "refused":
        raise BundleError("model", "is not here")  # an exception that does not pickle
    if task == "broken":
        raise ValueError("nobody expects this")
    if task == "killed":
        os._exit(3)
    return task, os.getpid(), os.environ.get("OMP_NUM_THREADS")


def test_a_task_that_fails_does_not_stop_the_others(capfd: pytest.CaptureFixture[str]) -> None:
    names = ["refused", "broken", "killed", "fine"]
    ended: list[str] = []
    results = run_in_processes(
        work, {name: name for name in names}, 2, ended=lambda key, _: ended.append(key), reuse=True
    )
    assert results["refused"] == Failure("policy bundle refused: model: is not here")
    assert results["broken"] == Failure("ValueError: nobody expects this")
    assert results["killed"] == Failure("its process ended with exit code 3")
    assert not isinstance(results["fine"], Failure)
    assert sorted(ended) == sorted(names)
    assert "nobody expects this" in capfd.readouterr().err


@pytest.mark.parametrize(("reuse", "processes"), [(True, 1), (False, 3)])
def test_processes_carry_out_one_task_or_several(reuse: bool, processes: int) -> None:
    with one_thread_each():
        results = run_in_processes(work, dict.fromkeys(range(3), "task"), 1, reuse=reuse)
    found = [result for result in results.values() if not isinstance(result, Failure)]
    assert len({process for _, process, _ in found}) == processes
    assert {threads for *_, threads in found} == {"1"}


def test_whoever_watches_ends_everything_by_raising_and_the_environment_is_restored() -> None:
    before = {name: os.environ.get(name) for name in THREAD_VARIABLES}

    def stop(_keys: Iterable[int]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), one_thread_each():
        run_in_processes(work, dict.fromkeys(range(4), "task"), 2, watch=stop)
    assert before == {name: os.environ.get(name) for name in THREAD_VARIABLES}
