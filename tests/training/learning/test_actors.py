"""Actors of every kind: which network a node gets, which bids stay zero, and that ONNX Runtime agrees."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from policy.actors import Actors
from policy.bundle import load_bundle
from policy.criteria import CRITERIA_NAMES
from policy.features import FEATURE_NAMES
from tests.training.tiny_runs import NODES, one_thread, quick_parity, random_batch, tiny_config  # noqa: F401 - fixtures
from training.config import ActorConfig
from training.export import export_bundle, onnx_model, parity, random_observations
from training.learning.algorithms import build_algorithm
from training.learning.collector import Arena, look_at
from training.learning.loop import BEST_FILE, Trainer, load_actor
from training.learning.monotone import BETTER, MonotoneActor, PositiveLinear, gain_where_worse
from training.learning.networks import Actor, AnyActor, ClassActors, build_actor, parameter_count
from training.simulator.scenarios import load_scenario
from training.simulator.simulation import Simulator

SPEED = FEATURE_NAMES.index("node_speed")
CONSTANT = CRITERIA_NAMES.index("constant")
PER_CLASS: dict[str, Any] = {"kind": "per_class", "speed_classes": [-0.15, 0.1]}
MONOTONE: dict[str, Any] = {
    "kind": "monotone",
    "criteria_set": "physical",
    "memory_bound": True,
    "initial_bids": [0.5, 0.3, 0.4, 0.2],
}
KINDS: dict[str, dict[str, Any]] = {
    "shared": {},
    "shared-plain": {"criteria": "constant"},
    "per-class": PER_CLASS,
    "per-class-plain": {**PER_CLASS, "criteria": "constant"},
    "monotone": MONOTONE,
    "monotone-by-two": {**MONOTONE, "features": ["cpu_pressure", "pod_size"]},
    "of-three-features": {"features": ["cpu_pressure", "node_speed", "pod_urgency"]},
    "two-classes": {"kind": "per_class", "speed_classes": [0.0], "hidden": [24, 16, 8]},
}
every_kind = pytest.mark.parametrize("settings", KINDS.values(), ids=KINDS)


def spread(settings: dict[str, Any]) -> AnyActor:
    """An actor whose bids cover their range, unlike an untrained one's."""
    torch.manual_seed(1)
    actor = build_actor(ActorConfig(**{"hidden": (16, 16), **settings}))
    if isinstance(actor, MonotoneActor):
        return jagged(1)
    for member in actor.actors if isinstance(actor, ClassActors) else [actor]:
        torch.nn.init.normal_(member.head.weight, std=0.2)
    return actor


def at_speed(speed: float, rows: int = 5) -> torch.Tensor:
    observation = torch.rand(rows, 8)
    observation[:, SPEED] = speed
    return observation


@pytest.mark.parametrize(
    ("speed", "member"),
    [(-1.0, 0), (-0.2, 0), (-0.15, 1), (0.0, 1), (0.0999, 1), (0.1, 2), (3.0, 2)],
    ids=["slowest", "slow", "first-boundary", "reference", "below-second", "second-boundary", "fastest"],
)
def test_a_nodes_network_follows_from_its_speed(speed: float, member: int) -> None:
    actor = spread(PER_CLASS)
    assert isinstance(actor, ClassActors)
    observation = at_speed(speed)
    assert torch.allclose(actor(observation), actor.actors[member](observation))


def test_rows_of_all_classes_are_answered_in_place_whatever_the_leading_axes() -> None:
    actor = spread(PER_CLASS)
    observation = torch.from_numpy(random_observations(60, np.random.default_rng(2)))
    together = actor(observation.reshape(4, 15, 8)).reshape(60, 4)
    one_by_one = torch.cat([actor(row[None]) for row in observation])
    assert torch.allclose(together, one_by_one, atol=1e-6)


@pytest.mark.parametrize("kind", ["shared", "monotone", "per-class"])
def test_bids_follow_from_the_chosen_features_alone_before_training_and_after(kind: str, tmp_path: Path) -> None:
    seen = ("node_speed", "pod_size")
    config = tiny_config(tmp_path, actor={**KINDS[kind], "hidden": [16, 16], "features": list(seen)})
    trainer = Trainer(config, tmp_path / "run")
    for _ in range(2):
        actor = trainer.algorithm.actor
        observations = torch.from_numpy(random_observations(200, np.random.default_rng(0)))
        others = torch.from_numpy(random_observations(200, np.random.default_rng(1)))
        columns = [FEATURE_NAMES.index(name) for name in seen]
        others[:, columns] = observations[:, columns]
        assert torch.equal(actor(observations), actor(others))
        for column in columns:
            changed = observations.clone()
            changed[:, column] += 0.1
            assert not torch.equal(actor(observations), actor(changed))
        trainer.run(max_updates=20)


def test_a_feature_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"features holds \['speed'\]; choose among cpu_requested"):
        ActorConfig(features=("speed", "pod_size"))


def test_only_the_networks_of_the_classes_present_learn() -> None:
    actor = spread(PER_CLASS)
    assert isinstance(actor, ClassActors)
    actor(at_speed(0.5)).sum().backward()
    moved = [bool(member.head.weight.grad is not None and member.head.weight.grad.any()) for member in actor.actors]
    assert moved == [False, False, True]


def test_parameters_are_those_of_every_class_and_of_the_bids_that_are_made() -> None:
    one = parameter_count(Actor((16, 16), (0.0,) * 4))
    assert parameter_count(spread(PER_CLASS)) == 3 * one
    assert parameter_count(spread({"criteria": "constant"})) == one - 3 * (16 + 1)


@every_kind
def test_plain_actors_bid_on_the_constant_criterion_alone(settings: dict[str, Any]) -> None:
    bids = spread(settings)(torch.from_numpy(random_observations(200, np.random.default_rng(3))))
    others = [index for index in range(4) if index != CONSTANT]
    assert bids[:, CONSTANT].std() > 0.05
    assert bool(bids[:, others].any()) == (settings.get("criteria") != "constant")


@every_kind
def test_onnx_runtime_agrees_with_torch_for_every_kind(settings: dict[str, Any], quick_parity: None) -> None:  # noqa: F811
    actor = spread(settings)
    model = onnx_model(actor)
    assert parity(model, actor) <= 1e-5
    assert onnx_model(actor) == model


def test_onnx_runtime_and_torch_put_a_node_at_a_boundary_in_the_same_class() -> None:
    actor = spread(PER_CLASS)
    edges = [np.float32(-0.15), np.float32(0.1)]
    speeds = [value for edge in edges for value in (np.nextafter(edge, np.float32(-2)), edge, np.nextafter(edge, 2))]
    observation = np.full((len(speeds), 8), 0.5, dtype=np.float32)
    observation[:, SPEED] = speeds
    with torch.no_grad():
        expected = actor(torch.from_numpy(observation)).numpy()
    assert np.abs(Actors(onnx_model(actor)).bids(observation) - expected).max() <= 1e-5
    # Below and at a boundary are other networks, at and above it the same one.
    jumps = np.abs(np.diff(expected, axis=0)).max(axis=1)
    assert jumps[[0, 3]].min() > 1e-3 > 1e-5 > jumps[[1, 4]].max()


@every_kind
def test_noise_and_training_leave_plain_bids_plain(settings: dict[str, Any], tmp_path: Path) -> None:
    config = tiny_config(tmp_path, actor={"hidden": [16, 16], **settings})
    arena, algorithm = Arena(config, 0), build_algorithm(config, NODES)
    arena.begin()
    for _ in range(5):
        arena.step(algorithm, 0.5)
    kept = np.delete(arena.replay.bids[:5], CONSTANT, axis=-1)
    assert bool(kept.any()) == (settings.get("criteria") != "constant")
    assert arena.replay.bids[:5, ..., CONSTANT].std() > 0.1


def test_smoothing_noise_leaves_plain_bids_plain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config(tmp_path, algorithm="matd3", actor={"hidden": [16, 16], "criteria": "constant"})
    algorithm: Any = build_algorithm(config, NODES)
    smaller, seen = algorithm.target_critics.smaller, []
    monkeypatch.setattr(algorithm.target_critics, "smaller", lambda *given: (seen.append(given[1]), smaller(*given))[1])
    algorithm.update(random_batch(16, NODES))
    assert seen[0][..., CONSTANT].any()
    assert not np.delete(seen[0].numpy(), CONSTANT, axis=-1).any()


@pytest.mark.parametrize("kind", ["per-class", "per-class-plain", "shared-plain", "monotone"])
def test_a_trained_policy_of_every_kind_is_exported_and_served_as_any_other(
    kind: str,
    tmp_path: Path,
    quick_parity: None,  # noqa: F811
) -> None:
    config = tiny_config(tmp_path, updates=25, actor={"hidden": [16, 16], **KINDS[kind]})
    Trainer(config, tmp_path / "run").run()
    actor, known, _ = load_actor(tmp_path / "run" / BEST_FILE)
    assert known.actor == config.actor
    manifest = export_bundle(actor, known, tmp_path / "bundle", training={"command": "train"}, card="# card\n")
    assert manifest.parameters == parameter_count(actor)
    observation = random_observations(9, np.random.default_rng(2))
    with torch.no_grad():
        expected = actor(torch.from_numpy(observation)).numpy()
    bundle = load_bundle(tmp_path / "bundle")
    assert np.abs(bundle.actors.bids(observation) - expected).max() <= 1e-5
    assert bundle.scorer().criteria.name == config.actor.criteria_set


def jagged(seed: int) -> MonotoneActor:
    """A monotone actor with weights far from those of an untrained one, negative ones included."""
    torch.manual_seed(seed)
    actor = build_actor(ActorConfig(**{"hidden": (16, 16), **MONOTONE}))
    assert isinstance(actor, MonotoneActor)
    for parameter in actor.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    first = actor.body[0]
    assert isinstance(first, PositiveLinear)
    with torch.no_grad():
        first.bias.sub_(first.signed.sum(dim=1))  # bends in the middle of `random_observations`
    return actor


@pytest.mark.parametrize("seed", range(3))
def test_bids_of_a_monotone_actor_never_rise_where_a_node_is_worse(seed: int) -> None:
    actor = jagged(seed)
    observation = torch.from_numpy(random_observations(2000, np.random.default_rng(seed)))
    with torch.no_grad():
        before = actor(observation)
        assert before.min() >= 0.0
        assert before.max() <= 1.0
        for name, better in BETTER.items():
            worse = observation.clone()
            worse[:, FEATURE_NAMES.index(name)] -= better * torch.rand(2000)
            fallen = before - actor(worse)
            assert fallen.min() >= -1e-6, name
            assert fallen.max() > 0.01, name


def test_a_monotone_actor_gains_nothing_from_being_worse_and_others_what_their_bids_rise() -> None:
    assert gain_where_worse(jagged(1), 4096, torch.Generator().manual_seed(1)) == 0.0
    column = FEATURE_NAMES.index("cpu_pressure")

    def rising(observation: torch.Tensor) -> torch.Tensor:
        return observation[:, [column]].expand(-1, 4)

    gained = gain_where_worse(rising, 200_000, torch.Generator().manual_seed(1)).item()
    # one in six is more pressed, by 0.15 on average but for what the bound cuts off, on criteria that add up to 2
    cut = np.mean(np.minimum(np.linspace(0, 0.3, 1001)[:, None], 1.0 - np.linspace(0, 1, 1001)[None, :]))
    assert gained == pytest.approx(cut * 2.0 / 6.0, rel=0.03)


def test_the_penalty_teaches_an_actor_to_gain_nothing_by_being_worse(tmp_path: Path) -> None:
    def gained(penalty: float) -> float:
        config = tiny_config(tmp_path, objective={"worse_penalty": penalty}, optimiser={"actor_rate": 3e-3})
        learner = build_algorithm(config, NODES)
        for number in range(60):
            learner.update(random_batch(16, NODES, seed=number))
        return gain_where_worse(learner.actor, 4096, torch.Generator().manual_seed(1)).item()

    without, penalised = gained(0.0), gained(100.0)
    assert without > 1e-3
    assert penalised < 0.2 * without


def test_a_monotone_actor_may_bid_more_or_less_for_other_pods() -> None:
    observation = torch.full((101, 8), 0.5)
    observation[:, FEATURE_NAMES.index("pod_urgency")] = torch.linspace(0.0, 1.0, 101)
    steps = torch.cat([jagged(seed)(observation).diff(dim=0) for seed in range(4)])
    assert steps.max() > 1e-4
    assert steps.min() < -1e-4


def test_every_weight_of_a_monotone_actor_learns() -> None:
    actor = jagged(0)
    actor(torch.from_numpy(random_observations(256, np.random.default_rng(0)))).square().sum().backward()
    for name, parameter in actor.named_parameters():
        assert parameter.grad is not None, name
        assert (parameter.grad != 0.0).all(), name


def test_an_untrained_monotone_actor_bids_as_configured() -> None:
    actor = build_actor(ActorConfig(**{"hidden": (16, 16), **MONOTONE}))
    with torch.no_grad():
        bids = actor(torch.from_numpy(random_observations(200, np.random.default_rng(1))))
    assert torch.allclose(bids, torch.tensor(MONOTONE["initial_bids"]).expand_as(bids), atol=0.02)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"criteria_set": "classic"}, "criteria_set"),
        ({"criteria": "constant"}, "criteria"),
        ({"initial_bids": [0.0, 0.5, 0.5, 0.5]}, "initial_bids"),
        ({"speed_classes": [0.1]}, "speed_classes"),
    ],
    ids=["classic", "plain", "a-bid-of-zero", "classes"],
)
def test_settings_that_would_not_be_monotone_are_refused(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        ActorConfig(**{**MONOTONE, **changes})


def test_noise_and_smoothing_keep_the_bids_of_a_monotone_actor_above_zero(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, algorithm="matd3", actor={"hidden": [16, 16], **MONOTONE})
    arena, algorithm = Arena(config, 0), build_algorithm(config, NODES)
    arena.begin()
    for _ in range(5):
        arena.step(algorithm, 1.0)
    assert arena.replay.bids[:5].min() == 0.0
    assert arena.replay.bids[:5].max() == 1.0


def test_training_places_no_pod_beyond_the_memory_bound(tmp_path: Path) -> None:
    simulator = Simulator(load_scenario("reference"), 2, 0)
    size = simulator.state.memory_allocatable
    crowded = replace(simulator.state, memory_used=size.copy(), memory_nonzero=size.copy())
    crowded.memory_used[:, 0] = 0.0
    seen = SimpleNamespace(state=crowded, demand=simulator.demand, feasible=simulator.feasible)
    bound, free = (look_at(cast("Simulator", seen), ActorConfig(memory_bound=each)) for each in (True, False))
    assert free.feasible.all()
    assert bound.feasible[:, 0].all()
    assert not bound.feasible[:, 1:].any()
    crowded.memory_used[:, 0] = crowded.memory_allocatable[:, 0]
    assert look_at(cast("Simulator", seen), ActorConfig(memory_bound=True)).feasible.all()
