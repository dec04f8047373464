"""`maddpg-train tune`: what is drawn, which trials stop, and that a killed search ends as one that never was."""

from __future__ import annotations

import signal
import sqlite3
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from optuna.trial import FrozenTrial, TrialState
from typer.testing import CliRunner

from policy.errors import InvalidInputError
from tests.training.tiny_runs import document, one_thread, tiny_config  # noqa: F401 - a fixture
from training.cli import DEFAULT_CONFIG, SEARCH_SPACE, app
from training.config import load_config, parse_config
from training.files import FolderInUseError, lock
from training.learning.loop import LATEST_FILE, Trainer
from training.search.space import SearchSpace, load_space
from training.search.storage import RESUMES, STUDY_FILE, best_trial, by_folder, opened
from training.search.trials import BEST_FILE, FAILED, Found, Search, SearchError, SearchSettings, Standing

FIELDS: dict[str, Any] = {
    "optimiser.actor_rate": {"low": 1e-4, "high": 1e-2, "log": True},
    "objective.n_step": {"low": 4, "high": 16, "step": 4},
    "exploration.noise": {"choices": ["ou", "none"]},
    "critic.hidden": {"choices": [[16, 16], [8, 8]]},
}
UPDATES = 45
"""With two steps an update: four rounds of training, and a selection and a checkpoint after each."""


def space(fields: dict[str, Any] | None = None, **settings: Any) -> SearchSpace:
    return SearchSpace.model_validate({"fields": fields or FIELDS, "random_trials": 2, **settings})


def settings(folder: Path, searched: SearchSpace | None = None, seed: int = 5, **overrides: Any) -> SearchSettings:
    content = document(folder, updates=UPDATES, **overrides)
    content["arenas"][0]["steps_per_update"] = 2
    content["selection"]["every_updates"] = 10
    return SearchSettings(parse_config(content), searched or space(), seed, threads=1)


def trials_of(search: SearchSettings, out: Path) -> list[FrozenTrial]:
    with opened(out, search.document(), optuna.pruners.NopPruner()) as study:
        return list(study.get_trials())


def outcomes(trials: list[FrozenTrial]) -> list[tuple[Any, ...]]:
    """What every draw came to, whatever happened in between."""
    last = [tries[-1] for tries in by_folder(trials).values()]
    return [(each.state, each.params, each.value, each.intermediate_values) for each in last]


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
from training.config import load_config
from training.search.space import load_space
from training.search.trials import Search, SearchSettings

def watch(standing):
    if standing.begun == 2 and standing.progress.updates >= 42:
        os.kill(os.getpid(), signal.SIGKILL)

config, space, out = map(Path, sys.argv[1:])
torch.set_num_threads(1)
Search(SearchSettings(load_config(config), load_space(space), 5, 1), out).run(3, watch=watch)
"""


def test_a_search_killed_in_the_middle_of_a_trial_goes_on_and_ends_as_one_that_was_not(tmp_path: Path) -> None:
    search = settings(tmp_path)
    config, searched = tmp_path / "base.yml", tmp_path / "space.yml"
    config.write_text(yaml.safe_dump(search.base.model_dump(mode="json")))
    searched.write_text(yaml.safe_dump(search.space.model_dump(mode="json")))
    out = tmp_path / "killed"
    words = [sys.executable, "-c", KILLED, str(config), str(searched), str(out)]
    killed = subprocess.run(words, check=False, capture_output=True, text=True, timeout=240)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    before = trials_of(search, out)
    assert [trial.state for trial in before] == [TrialState.COMPLETE, TrialState.RUNNING]
    assert before[1].intermediate_values.keys() == {1, 2, 3}
    checkpoint = Trainer.resume(out / "trial-1").algorithm.updates
    assert 0 < checkpoint < UPDATES

    begins: list[tuple[int, int]] = []
    command = [
        "tune",
        "--config",
        config,
        "--space",
        searched,
        "--out",
        out,
        "--trials",
        3,
        "--seed",
        5,
        "--threads",
        1,
    ]
    seen = Search.run

    def watched(self: Search, trials: int, **options: Any) -> Found:
        def watch(standing: Standing) -> None:
            begins.append((standing.trial, standing.progress.updates))

        return seen(self, trials, **{**options, "watch": watch})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Search, "run", watched)
        result = CliRunner().invoke(app, [str(word) for word in command], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "3 completed, 0 stopped early, 0 failed, 0 unfinished; 3 wanted" in result.output
    assert begins[0][0] == 1
    assert begins[0][1] > checkpoint  # it did not begin anew
    after = trials_of(search, out)
    assert [trial.state for trial in after] == [
        TrialState.COMPLETE,
        TrialState.FAIL,
        TrialState.COMPLETE,
        TrialState.COMPLETE,
    ]
    assert after[2].user_attrs[RESUMES] == 1
    assert not list(out.glob(f"trial-*/{LATEST_FILE}"))

    whole = tmp_path / "whole"
    Search(search, whole).run(3)
    assert outcomes(after) == outcomes(trials_of(search, whole))
    # The same values and scores; the number of the third draw's folder alone counts the trial that failed.
    ours, theirs = (load_config(each / BEST_FILE) for each in (out, whole))
    assert ours == theirs
    best = min((trial for trial in after if trial.value is not None), key=lambda trial: trial.value or 0.0)
    assert ours == search.space.configure(search.base, best.params)
    assert f"score {best.value:.6g}" in (out / BEST_FILE).read_text()


@pytest.fixture
def scored_by_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores equal the drawn actor rate, so that it is known who is to be stopped; training itself is real."""
    rate = [0.0]
    init = Trainer.__init__

    def remember(self: Trainer, config: Any, *args: Any, **options: Any) -> None:
        rate[0] = config.optimiser.actor_rate
        init(self, config, *args, **options)

    monkeypatch.setattr(Trainer, "__init__", remember)
    monkeypatch.setattr("training.learning.selection.Selection.rates", lambda _self, _scorer: {"score": rate[0]})


@pytest.mark.usefixtures("scored_by_rate")
def test_a_trial_worse_than_the_median_stops_after_the_warm_up_and_the_best_is_written(tmp_path: Path) -> None:
    searched = space(
        {"optimiser.actor_rate": FIELDS["optimiser.actor_rate"]},
        random_trials=20,
        pruner={"startup_trials": 1, "warmup_selections": 1},
    )
    search = settings(tmp_path, searched)
    said: list[str] = []
    found = Search(search, tmp_path / "out").run(5, say=said.append)
    trials = trials_of(search, tmp_path / "out")
    completed: list[float] = []
    for trial in trials:
        rate = trial.params["optimiser.actor_rate"]
        worse = bool(completed) and rate > statistics.median(completed)
        assert trial.state is (TrialState.PRUNED if worse else TrialState.COMPLETE)
        if trial.state is TrialState.PRUNED:
            assert trial.intermediate_values == {1: rate, 2: rate}
        else:
            assert trial.intermediate_values == {1: rate, 2: rate, 3: rate, 4: rate}
            completed.append(rate)
    assert found.pruned == len(trials) - len(completed) > 0
    assert found.best == min(completed)
    assert load_config(tmp_path / "out" / BEST_FILE).optimiser.actor_rate == min(completed)
    assert sum("stopped early" in line for line in said) == found.pruned


def test_a_search_out_of_time_is_gone_on_with_by_the_same_call(tmp_path: Path) -> None:
    search = settings(tmp_path)
    ticks = iter(range(10_000))
    found = Search(search, tmp_path / "out", clock=lambda: float(next(ticks))).run(2, max_seconds=4.0)
    assert (found.completed, found.unfinished) == (0, 1)
    (begun, queued) = trials_of(search, tmp_path / "out")
    assert (begun.state, queued.state) == (TrialState.FAIL, TrialState.WAITING)
    found = Search(search, tmp_path / "out").run(1)
    assert (found.completed, found.unfinished, found.best_trial) == (1, 0, 0)


def test_a_draw_that_a_kill_cut_short_is_drawn_again(tmp_path: Path) -> None:
    search = settings(tmp_path)
    with opened(tmp_path / "out", search.document(), optuna.pruners.NopPruner()) as study:
        study.ask().suggest_categorical("exploration.noise", ["ou", "none"])  # and the kill, before the other fields
    Search(search, tmp_path / "out").run(1)
    Search(search, tmp_path / "whole").run(1)
    assert outcomes(trials_of(search, tmp_path / "out")) == outcomes(trials_of(search, tmp_path / "whole"))


def test_a_trial_of_a_living_process_is_left_to_it(tmp_path: Path) -> None:
    search, out = settings(tmp_path), tmp_path / "out"
    with opened(out, search.document(), optuna.pruners.NopPruner()) as study:
        study.ask(search.space.distributions(search.base))
    (out / "trial-0").mkdir()
    held = lock(out / "trial-0", patience=0.0)
    with pytest.raises(FolderInUseError, match="trial-0: another process"):
        lock(out / "trial-0", patience=0.0)
    found = Search(search, out).run(1)
    assert (found.completed, found.unfinished) == (0, 1)
    assert [trial.state for trial in trials_of(search, out)] == [TrialState.RUNNING]
    held.close()
    assert Search(search, out).run(1).completed == 1


def test_values_that_do_not_go_together_fail_one_trial_and_not_the_search(tmp_path: Path) -> None:
    searched = space({"algorithm": {"choices": ["maddpg", "matd3"]}, "critic.twin": {"choices": [True, False]}})
    search = settings(tmp_path, searched)
    with opened(tmp_path / "out", search.document(), optuna.pruners.NopPruner()) as study:
        study.enqueue_trial({"algorithm": "matd3", "critic.twin": False})
    found = Search(search, tmp_path / "out").run(2)
    assert found.completed == 1
    assert found.failed == 1
    refused = [trial for trial in trials_of(search, tmp_path / "out") if FAILED in trial.user_attrs]
    assert [trial.params for trial in refused] == [{"algorithm": "matd3", "critic.twin": False}]
    assert "critic.twin" in refused[0].user_attrs[FAILED]


def test_training_that_breaks_fails_its_trial_and_a_search_of_such_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverged(*_arguments: Any, **_options: Any) -> None:
        raise RuntimeError("probabilities contain nan")

    monkeypatch.setattr(Trainer, "run", diverged)
    with pytest.raises(SearchError, match=r"none of 2 trials completed.*probabilities contain nan"):
        Search(settings(tmp_path), tmp_path / "out").run(2)


def test_another_configuration_is_refused_by_name_for_a_folder_that_holds_a_search(tmp_path: Path) -> None:
    begun = settings(tmp_path)
    with opened(tmp_path / "out", begun.document(), optuna.pruners.NopPruner()) as study:
        assert best_trial(study) is None
    others = {
        r"config\.objective\.discount is 0\.9.*begun with 0\.99": settings(tmp_path, objective={"discount": 0.9}),
        r"space\.random_trials is 7": settings(tmp_path, space(random_trials=7)),
        r"seed is 6": settings(tmp_path, seed=6),
    }
    for message, other in others.items():
        with pytest.raises(InvalidInputError, match=message + ".*give another --out"):
            Search(other, tmp_path / "out").run(1)


@pytest.mark.parametrize("content", [b"no database", b"", "other"], ids=["text", "empty", "another database"])
def test_a_file_that_is_no_study_is_refused(content: bytes | str, tmp_path: Path) -> None:
    path = tmp_path / "out" / STUDY_FILE
    path.parent.mkdir()
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        connection = sqlite3.connect(path)
        connection.execute("CREATE TABLE things (name TEXT)")
        connection.close()
    with pytest.raises(InvalidInputError, match=r"study\.db .*give another --out"):
        Search(settings(tmp_path), path.parent).run(1)


def test_trials_without_their_study_are_never_overwritten(tmp_path: Path) -> None:
    kept = tmp_path / "out" / "trial-0" / "best.pt"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"weights")
    with pytest.raises(InvalidInputError, match="trial-0"):
        Search(settings(tmp_path), tmp_path / "out").run(1)
    assert kept.read_bytes() == b"weights"


def test_a_base_without_selection_suites_is_refused(tmp_path: Path) -> None:
    base = tiny_config(tmp_path, selection={"suites": []})
    with pytest.raises(InvalidInputError, match=r"selection\.suites"):
        Search(SearchSettings(base, space(), 1, 1), tmp_path / "out")


BAD_SHAPES: list[tuple[dict[str, Any], str]] = [
    ({}, "fields"),
    ({"fields": {}}, "fields"),
    ({"fields": FIELDS, "pruner": {"startup": 1}}, r"pruner\.startup"),
    ({"fields": {"updates": {"low": 1}}}, r"fields\.updates: .*give low and high"),
    ({"fields": {"updates": {"low": 2, "high": 1}}}, r"fields\.updates: .*low 2 is not below high 1"),
    ({"fields": {"updates": {"low": 0, "high": 1, "log": True}}}, r"fields\.updates: .*no logarithm"),
    ({"fields": {"updates": {"low": 1, "high": 4, "step": 2}}}, r"fields\.updates: .*whole steps of 2"),
    ({"fields": {"updates": {"low": 1, "high": 4, "step": 1, "log": True}}}, r"fields\.updates: .*step and log"),
    ({"fields": {"updates": {"choices": []}}}, r"fields\.updates\.choices"),
    ({"fields": {"updates": {"choices": [1, 1]}}}, r"fields\.updates: .*twice"),
    ({"fields": {"updates": {"choices": [1], "low": 1}}}, r"fields\.updates: .*choices stand alone"),
    ({"fields": {"updates": {"low": 1, "high": float("inf")}}}, r"fields\.updates\.high"),
]


@pytest.mark.parametrize(("content", "message"), BAD_SHAPES, ids=range(len(BAD_SHAPES)))
def test_a_bad_space_file_names_the_field(content: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "space.yml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(InvalidInputError, match=message):
        load_space(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [("- a list", "not a mapping"), ("a: [", "not YAML"), (None, "cannot read")],
    ids=["list", "broken", "missing"],
)
def test_a_space_file_that_does_not_parse_is_refused(text: str | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "space.yml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InvalidInputError, match=message):
        load_space(path)


UNFIT: list[tuple[str, dict[str, Any], str]] = [
    ("optimiser.actor_rat", {"low": 0.1, "high": 0.2}, "did you mean actor_rate"),
    ("optimiser.zzz", {"low": 0.1, "high": 0.2}, "there are .*actor_rate"),
    ("arenas.1.batch", {"low": 8, "high": 16}, "1 is no setting"),
    ("seed.x", {"low": 1, "high": 2}, "seed is not searched"),
    ("seed", {"low": 1, "high": 2}, "best of many seeds is luck"),
    ("selection.every_updates", {"low": 1, "high": 2}, "yardstick"),
    ("updates.x", {"low": 1, "high": 2}, "x is no setting"),
    ("objective.discount", {"low": 0.5, "high": 1.5}, r"objective\.discount.*less than 1"),
    ("exploration.noise", {"choices": ["ou", "pink"]}, "'pink'"),
    ("exploration.noise", {"low": 1, "high": 2}, "give choices"),
    ("objective.n_step", {"low": 1.5, "high": 4.5}, "whole"),
]


@pytest.mark.parametrize(
    ("name", "draw", "message"), UNFIT, ids=[f"{name}-{index}" for index, (name, *_) in enumerate(UNFIT)]
)
def test_a_field_that_does_not_fit_the_base_is_named_with_the_fix(
    name: str, draw: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInputError, match=rf"fields\.{name}: .*{message}"):
        space({name: draw}).distributions(tiny_config(tmp_path))


def test_draws_become_settings_of_their_own_type(tmp_path: Path) -> None:
    base = tiny_config(tmp_path)
    fields = {
        **FIELDS,
        "arenas.0.batch": {"low": 8, "high": 32, "log": True},
        "objective.balance_weight": {"low": 0, "high": 0.5},
        "load": {"choices": [{"low": 0.2, "high": 0.4}, {"low": 0.3, "high": 0.5}]},
    }
    searched = space(fields)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    drawn = study.ask(searched.distributions(base)).params
    config = searched.configure(base, drawn)
    assert config.arenas[0].batch == drawn["arenas.0.batch"]
    assert isinstance(config.arenas[0].batch, int)
    assert config.objective.balance_weight == drawn["objective.balance_weight"]
    assert config.objective.n_step in {4, 8, 12, 16}
    assert config.critic.hidden in {(16, 16), (8, 8)}
    assert (config.load.low, config.load.high) in {(0.2, 0.4), (0.3, 0.5)}
    assert config.optimiser.critic_rate == base.optimiser.critic_rate


def test_the_committed_space_fits_the_shipped_configuration() -> None:
    base = load_config(DEFAULT_CONFIG)
    searched = load_space(SEARCH_SPACE)
    assert searched.distributions(base).keys() == searched.fields.keys()
