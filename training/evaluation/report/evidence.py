"""What a report cites besides its study: the simulator's speed here, a run at scale, and the ablation table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from policy.errors import InvalidInputError
from training.evaluation.report.goals import Goal
from training.files import read_json
from training.simulator.speed import GOAL, GOAL_NODES, growth, speeds

EPISODES_ASKED: Final = 10_000
MINUTES_ASKED: Final = 60.0

PARTS: Final[Mapping[str, str]] = {
    "critic.kind": "critic",
    "critic.twin": "twin",
    "exploration.noise": "noise",
    "replay.kind": "replay",
    "actor.criteria": "criteria bids against plain bids",
    "objective.per_node": "per-node against team reward",
}
"""Settings that the ablation table has to vary -> what it then compares."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """Measured apart from the study."""

    # number of nodes -> decisions a second of the simulator on one core of the reporting machine
    speeds: Mapping[int, float] = field(default_factory=dict)
    scale: Mapping[str, Any] | None = None  # the ``outcome.json`` of a run of many episodes; None where none is given
    # the ``ablations.json`` of `maddpg-train ablate`; None where none is given
    ablations: Mapping[str, Any] | None = None


def measured(scale: Path | None, ablations: Path | None, seconds: float = 1.0) -> Evidence:
    """The simulator's speed here, `seconds` for each measurement, and what the cited files say.

    Raises:
        InvalidInputError: a file does not read, or is something else.
    """
    cited = read_scale(scale) if scale else None, read_ablations(ablations) if ablations else None
    return Evidence(speeds(seconds), *cited)


def read_scale(path: Path) -> dict[str, Any]:
    """How a run of many episodes ended, as `maddpg-train run` left it in ``outcome.json``.

    Raises:
        InvalidInputError: it does not read, or is something else.
    """
    found = read_json(path, "give a file that maddpg-train wrote")
    if not {"episodes", "seconds", "finished"} <= set(found):
        raise InvalidInputError(f"{path} has no episodes, seconds and finished; give the outcome.json of a run")
    return {name: found[name] for name in ("episodes", "seconds", "updates", "finished") if name in found}


def read_ablations(path: Path) -> dict[str, Any]:
    """Variant -> its settings, number of seeds and how many of them diverged.

    Raises:
        InvalidInputError: it does not read, or is something else.
    """
    try:
        return {
            name: {
                "settings": variant["settings"],
                "seeds": len(variant["seeds"]),
                "diverged": len(variant["diverged"]),
            }
            for name, variant in read_json(path, "give a file that maddpg-train wrote")["variants"].items()
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise InvalidInputError(f"{path} is not the ablations.json of maddpg-train ablate ({error!r})") from error


def further_goals(evidence: Evidence) -> list[Goal]:
    """The goals that no episode of the study decides; one whose evidence is missing is not reached."""
    return [*_speed(evidence.speeds), _scale(evidence.scale), _ablations(evidence.ablations)]


def _speed(speeds: Mapping[int, float]) -> list[Goal]:
    speed = speeds.get(GOAL_NODES)
    reached = speed is not None and speed >= GOAL
    goals = [
        Goal(f"simulator, {GOAL_NODES} nodes, one core: decisions a second", speed, f">= {GOAL:,.0f}", reached),
    ]
    costs = growth(speeds) if speeds else {}
    most = max(costs, default=None)
    by_size = ", ".join(f"{nodes} nodes {cost:.3g}" for nodes, cost in costs.items())
    name = f"simulator: cost of a decision over that on {GOAL_NODES} nodes ({by_size or 'not measured'})"
    goals.append(Goal(name, None if most is None else costs[most], "printed up to 1,000 nodes", most == 1000))
    return goals


def _scale(scale: Mapping[str, Any] | None) -> Goal:
    name, wanted = f"minutes for {EPISODES_ASKED:,} training episodes", f"< {MINUTES_ASKED:g}"
    if scale is None:
        return Goal(f"{name} (no run was given)", None, wanted, False)
    episodes, seconds = int(scale["episodes"]), float(scale["seconds"])
    minutes = seconds / 60.0 * EPISODES_ASKED / episodes if episodes else float("nan")
    whole = bool(scale["finished"]) and episodes >= EPISODES_ASKED
    said = f"{name} (a run of {episodes:,} in {seconds / 60.0:.1f} minutes{'' if whole else ', not as many'})"
    return Goal(said, minutes if np.isfinite(minutes) else None, wanted, whole and minutes < MINUTES_ASKED)


def _ablations(variants: Mapping[str, Any] | None) -> Goal:
    name, wanted = "ablation table: parts compared", f"{len(PARTS)}: {', '.join(PARTS.values())}"
    if variants is None:
        return Goal(f"{name} (no table was given)", 0.0, wanted, False)
    varied = {key for variant in variants.values() for key in _dotted(variant["settings"])}
    found = [part for part in PARTS if part in varied]
    fewest = min((variant["seeds"] for variant in variants.values()), default=0)
    return Goal(f"{name} ({fewest} seeds each)", float(len(found)), wanted, len(found) == len(PARTS))


def _dotted(settings: Mapping[str, Any], above: str = "") -> list[str]:
    """Names of all settings in a nested mapping, ``critic.kind`` for ``{critic: {kind: joint}}``."""
    found: list[str] = []
    for name, value in settings.items():
        found += _dotted(value, f"{above}{name}.") if isinstance(value, Mapping) else [f"{above}{name}"]
    return found
