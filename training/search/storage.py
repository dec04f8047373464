"""The study of a hyperparameter search on disk, and which of its trials share a folder. Refuses to train.

A trial that goes on from an earlier one carries the attribute `RESUMES` with the number of the folder; all trials of
one folder are attempts at the same draw, and the last of them counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import optuna
import sqlalchemy
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from policy.errors import InvalidInputError
from training.files import lock

STUDY_FILE: Final = "study.db"
STUDY_NAME: Final = "maddpg-train tune"

SETTINGS: Final = "settings"
"""Attribute of the study: what it was begun with."""
RESUMES: Final = "resumes"
"""Attribute of a trial that goes on in the folder of the trial so numbered."""

LOCK_SECONDS: Final = 60.0
"""How long a process waits for another's write to the study."""


@contextmanager
def opened(out: Path, settings: Mapping[str, Any], pruner: optuna.pruners.BasePruner) -> Iterator[optuna.Study]:
    """The study of the search in `out`, made where there is none.

    Args:
        out: folder of the search, made where there is none.
        settings: what the search is begun with, as JSON.
        pruner: of the study; read from no disk, so given each time.

    Raises:
        InvalidInputError: the folder is not a search's, or its search was begun with other settings; the message names
            the first that differs.
    """
    path = out / STUDY_FILE
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with lock(out):
        if not path.exists():
            _begin(out, settings)
    with _stored(path) as storage:
        try:
            study = optuna.load_study(storage=storage, study_name=STUDY_NAME, pruner=pruner)
        except KeyError as error:
            raise InvalidInputError(f"{path} holds no study of this command; give another --out") from error
        begun, now = _flat(study.user_attrs.get(SETTINGS, {})), _flat(settings)
        for name in sorted(begun.keys() | now.keys()):
            if begun.get(name) != now.get(name):
                raise InvalidInputError(
                    f"{name} is {now.get(name)!r}, and the search in {out} was begun with {begun.get(name)!r}; "
                    "give another --out, or what it was begun with"
                )
        yield study


def _begin(out: Path, settings: Mapping[str, Any]) -> None:
    """Make the study where no trial of another search lies; whole, or under another name, as a kill may come."""
    left = next(out.glob("trial-*"), None)
    if left is not None:
        raise InvalidInputError(f"--out holds {left} but no {STUDY_FILE}; move it away, or give another --out")
    path = out / STUDY_FILE
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    with _stored(fresh) as storage:
        study = optuna.create_study(storage=storage, study_name=STUDY_NAME, direction="minimize")
        study.set_user_attr(SETTINGS, settings)
    fresh.replace(path)


def best_trial(study: optuna.Study) -> FrozenTrial | None:
    """The completed trial with the lowest score."""
    return study.best_trial if study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)) else None


def folder_number(trial: FrozenTrial | optuna.Trial) -> int:
    """Number of the trial's folder: its own, or that of the trial it goes on from."""
    return int(trial.user_attrs.get(RESUMES, trial.number))


def by_folder(trials: list[FrozenTrial]) -> dict[int, list[FrozenTrial]]:
    """Trials by the number of their folder; the last of each is what counts."""
    found: dict[int, list[FrozenTrial]] = {}
    for trial in sorted(trials, key=lambda each: each.number):
        found.setdefault(folder_number(trial), []).append(trial)
    return found


def _flat(document: Mapping[str, Any] | list[Any], above: str = "") -> dict[str, Any]:
    """Values of nested settings by dotted name."""
    found: dict[str, Any] = {}
    for key, value in document.items() if isinstance(document, Mapping) else enumerate(document):
        if isinstance(value, Mapping | list) and value:
            found |= _flat(value, f"{above}{key}.")
        else:
            found[f"{above}{key}"] = value
    return found


@contextmanager
def _stored(path: Path) -> Iterator[RDBStorage]:
    """Optuna's storage in a file; closed at the end, so that the file is whole."""
    url = sqlalchemy.URL.create("sqlite", database=str(path.absolute())).render_as_string()
    escaped = url.replace("{", "{{").replace("}", "}}")  # the storage formats its URL
    try:
        storage = RDBStorage(escaped, engine_kwargs={"connect_args": {"timeout": LOCK_SECONDS}})
    except sqlalchemy.exc.DatabaseError as error:
        raise InvalidInputError(f"{path} does not read as a study ({error.orig}); give another --out") from error
    try:
        yield storage
    finally:
        storage.remove_session()
        storage.engine.dispose()
