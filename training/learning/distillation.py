"""A trained policy taught to a smaller actor (policy distillation, Rusu et al., arXiv:1511.06295). No reward is seen.

The teacher plays the clusters it was trained on, noise included; the student learns its bids for every node it saw,
and its placement softmax, since a small error of a bid matters where two nodes are nearly equal.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import torch
from torch import Tensor

from policy.actors import Actors
from training.config import LoadConfig, TrainingConfig
from training.learning.collector import Arena
from training.learning.networks import AnyActor, build_actor
from training.learning.placement import placement_probabilities, preferences
from training.learning.replay import Batch

UPDATES: Final = 3000
RATE: Final = 2e-3
"""Adam's, falling linearly to nothing."""

LOADS: Final = LoadConfig(low=0.15, high=0.75)
"""Offered loads while the teacher plays: wider than it was trained on, since the student has to copy it everywhere."""

SIGMA: Final = 0.1
"""Noise on the teacher's bids while it plays, so that the student sees what lies beside its path."""

PLACEMENT_WEIGHT: Final = 0.1
"""Of the divergence of the placement softmax (nats), beside the mean squared error of the bids. A guess."""


def distil(
    teacher: Actors,
    config: TrainingConfig,
    updates: int = UPDATES,
    watch: Callable[[int, dict[str, float]], None] = lambda _update, _logs: None,
) -> AnyActor:
    """An actor of ``config.actor`` that bids as the teacher does; equal seeds, equal actors on equal machines.

    Args:
        teacher: the policy that is copied.
        config: the student's: its actor, seed, arenas and temperature are read.
        updates: gradient steps.
        watch: told of every step and its errors.
    """
    played = config.model_copy(update={"load": LOADS})
    arenas = [Arena(played, index) for index in range(len(config.arenas))]
    for arena in arenas:
        arena.begin()
        for _ in range(arena.steps):
            arena.step(teacher, SIGMA)
        arena.finish()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        student = build_actor(config.actor)
    optimiser = torch.optim.Adam(student.parameters(), lr=RATE)
    choices = np.random.default_rng(np.random.SeedSequence((config.seed, len(arenas))))
    shares = np.array([arena.settings.share for arena in arenas])
    for update in range(updates):
        optimiser.param_groups[0]["lr"] = RATE * (1.0 - update / updates)
        arena = arenas[int(choices.choice(len(arenas), p=shares / shares.sum()))]
        batch = arena.replay.sample(arena.settings.batch, arena.gamma)
        loss, logs = _loss(teacher, student, batch, config.exploration.temperature)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        watch(update + 1, logs)
    return student


def _loss(teacher: Actors, student: AnyActor, batch: Batch, temperature: float) -> tuple[Tensor, dict[str, float]]:
    """Squared error of the bids, and divergence of the placement from the teacher's."""
    wanted = torch.from_numpy(teacher.bids(batch.observation.numpy()))
    bids = student(batch.observation)
    theirs, ours = preferences(wanted, batch.measures), preferences(bids, batch.measures)
    placed = placement_probabilities(theirs, batch.feasible, temperature)
    # A finite floor: where no node is feasible every entry is masked, and a row of infinities has no softmax.
    log_ours = torch.log_softmax((ours / temperature).masked_fill(~batch.feasible, -1e4), -1)
    divergence = (placed * (placed.clamp_min(1e-12).log() - log_ours)).sum(-1).mean()
    squared = (bids - wanted).square().mean()
    with torch.no_grad():
        hidden = ~batch.feasible
        same = ours.masked_fill(hidden, -1e4).argmax(-1) == theirs.masked_fill(hidden, -1e4).argmax(-1)
    logs = {
        "bid_error": squared.item() ** 0.5,
        "divergence": divergence.item(),
        "same_placement": same.float().mean().item(),
    }
    return squared + PLACEMENT_WEIGHT * divergence, logs
