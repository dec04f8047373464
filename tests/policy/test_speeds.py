"""Learned node speeds: accuracy, honest intervals, bounds of memory, and every change that would mislead them."""

from __future__ import annotations

import math
import time
import tracemalloc

import numpy as np
import pytest

from policy.completions import KEPT_COMPLETIONS, SHORTEST_CPU_S, SpeedEvidence
from policy.errors import InvalidInputError
from policy.speeds import LABELLED_SPREAD, SpeedPrior

NOISE = 0.2
"""Between pods of one template, as the goals of the estimator say."""


class Cluster:
    """Nodes of known speed that complete pods of known templates."""

    def __init__(self, seed: int, speeds: list[float], templates: int = 6, noise: float = NOISE) -> None:
        self.generator = np.random.default_rng(seed)
        self.speeds = {f"n{row}": speed for row, speed in enumerate(speeds)}
        self.work = {f"t{row}": math.exp(self.generator.uniform(0.0, 3.0)) for row in range(templates)}
        self.noise = noise
        self.now = 0.0

    def complete(self, evidence: SpeedEvidence, node: str, template: str) -> None:
        factor = math.exp(self.noise * self.generator.standard_normal())
        self.now += 1.0
        evidence.completed(node, template, self.work[template] / self.speeds[node] * factor, self.now)

    def run(self, evidence: SpeedEvidence, per_node: int) -> None:
        templates = list(self.work)
        for node in self.speeds:
            for _ in range(per_node):
                self.complete(evidence, node, templates[int(self.generator.integers(len(templates)))])

    def relative(self) -> dict[str, float]:
        """True speeds over their geometric mean."""
        mean = math.exp(float(np.log(list(self.speeds.values())).mean()))
        return {node: speed / mean for node, speed in self.speeds.items()}


def drawn(seed: int, nodes: int = 10) -> list[float]:
    speeds: list[float] = np.random.default_rng(seed).uniform(0.4, 2.0, nodes).tolist()
    return speeds


def test_thirty_completions_a_node_give_speeds_within_ten_percent_and_intervals_that_hold_the_truth() -> None:
    errors, held = [], []
    for seed in range(1000):
        cluster, evidence = Cluster(seed, drawn(seed)), SpeedEvidence()
        cluster.run(evidence, 30)
        estimates, truth = evidence.refit(cluster.now).estimates, cluster.relative()
        errors += [abs(estimates[node].speed / speed - 1.0) for node, speed in truth.items()]
        held += [estimates[node].low <= speed <= estimates[node].high for node, speed in truth.items()]
    print(
        f"1,000 trials, ten nodes, 30 completions each: error median {np.median(errors):.3f}, "
        f"90th percentile {np.quantile(errors, 0.9):.3f}, 95 % intervals hold {np.mean(held):.3f}"
    )
    assert np.median(errors) < 0.10
    assert np.quantile(errors, 0.9) < 0.20
    assert 0.93 <= np.mean(held) <= 0.97


def test_one_completion_in_twenty_that_takes_ten_times_as_long_moves_no_speed_by_a_tenth() -> None:
    cluster, evidence = Cluster(5, drawn(5)), SpeedEvidence()
    cluster.run(evidence, 28)
    for node in cluster.speeds:
        for template in ("t0", "t1"):
            evidence.completed(node, template, 10.0 * cluster.work[template] / cluster.speeds[node], cluster.now)
    estimates = evidence.refit(cluster.now).estimates
    assert max(abs(estimates[node].speed / speed - 1.0) for node, speed in cluster.relative().items()) < 0.2


def test_a_label_gives_the_scale_to_every_node_that_common_templates_connect() -> None:
    cluster, evidence = Cluster(3, drawn(3)), SpeedEvidence()
    cluster.run(evidence, 30)
    evidence.expect("n0", SpeedPrior(speed=cluster.speeds["n0"], spread=LABELLED_SPREAD))
    estimates = evidence.refit(cluster.now).estimates
    assert all(estimate.anchored for estimate in estimates.values())
    assert max(abs(estimates[node].speed / speed - 1.0) for node, speed in cluster.speeds.items()) < 0.25


def test_a_new_node_is_expected_to_be_like_its_class() -> None:
    speeds = [0.6] * 5 + [1.5] * 5
    cluster, evidence = Cluster(4, [*speeds, 1.5]), SpeedEvidence()
    for row in range(11):
        evidence.expect(f"n{row}", SpeedPrior(node_class="slow" if row < 5 else "fast"))
    for node in list(cluster.speeds)[:10]:
        for _ in range(30):
            cluster.complete(evidence, node, f"t{int(cluster.generator.integers(6))}")
    cluster.noise = 0.0
    cluster.complete(evidence, "n10", "t0")
    estimate = evidence.refit(cluster.now).estimates["n10"]
    others = evidence.fitted.estimates
    assert estimate.speed == pytest.approx(others["n5"].speed, rel=0.15)
    assert estimate.high / estimate.low > others["n5"].high / others["n5"].low


def test_a_template_that_ran_on_one_node_alone_says_nothing_of_it() -> None:
    cluster, evidence = Cluster(6, drawn(6)), SpeedEvidence()
    cluster.run(evidence, 20)
    for _ in range(30):
        evidence.completed("lonely", "only-there", 1.0, cluster.now)
    fitted = evidence.refit(cluster.now)
    assert "lonely" not in fitted.estimates
    assert fitted.unconnected == {"lonely"}


def test_of_groups_that_share_no_template_only_the_one_with_more_evidence_is_compared() -> None:
    evidence = SpeedEvidence()
    for node, template, seconds, count in (
        ("a0", "t0", 1.0, 20), ("a1", "t0", 2.0, 20), ("b0", "t1", 1.0, 5), ("b1", "t1", 1.0, 5)
    ):  # fmt: skip
        for _ in range(count):
            evidence.completed(node, template, seconds, 0.0)
    fitted = evidence.refit(0.0)
    assert set(fitted.estimates) == {"a0", "a1"}
    assert fitted.unconnected == {"b0", "b1"}
    assert fitted.estimates["a0"].speed / fitted.estimates["a1"].speed == pytest.approx(2.0, rel=0.1)


def test_another_machine_under_the_name_of_a_node_begins_with_nothing() -> None:
    cluster, evidence = Cluster(7, drawn(7)), SpeedEvidence()
    cluster.run(evidence, 30)
    evidence.forget("n0")
    assert "n0" not in evidence.refit(cluster.now).estimates
    cluster.speeds["n0"] = 1.9
    cluster.noise = 0.0
    for template in cluster.work:
        cluster.complete(evidence, "n0", template)
    estimate = evidence.refit(cluster.now).estimates["n0"]
    assert estimate.completions == 6
    assert estimate.speed == pytest.approx(cluster.relative()["n0"], rel=0.15)


def test_a_node_that_becomes_another_machine_unannounced_is_found_out() -> None:
    cluster, evidence = Cluster(8, drawn(8)), SpeedEvidence()
    cluster.run(evidence, 40)
    evidence.refit(cluster.now)
    cluster.speeds["n3"] *= 0.4
    for count in range(30):
        cluster.complete(evidence, "n3", f"t{count % 6}")
    assert evidence.counts["node_changed"] == 1
    assert evidence.counts["template_changed"] == 0
    estimate = evidence.refit(cluster.now).estimates["n3"]
    assert estimate.speed == pytest.approx(cluster.relative()["n3"], rel=0.2)


def test_a_template_that_changes_its_work_is_found_out_and_moves_no_node() -> None:
    cluster, evidence = Cluster(9, drawn(9)), SpeedEvidence()
    cluster.run(evidence, 40)
    before = evidence.refit(cluster.now).estimates
    cluster.work["t0"] *= 3.0
    for _ in range(4):
        for node in cluster.speeds:
            cluster.complete(evidence, node, "t0")
    assert evidence.counts["template_changed"] == 1
    assert evidence.counts["node_changed"] == 0
    after = evidence.refit(cluster.now).estimates
    assert max(abs(after[node].speed / before[node].speed - 1.0) for node in before) < 0.1


def test_nothing_changes_where_nothing_changed() -> None:
    cluster, evidence = Cluster(10, drawn(10)), SpeedEvidence()
    for _ in range(20):
        cluster.run(evidence, 20)
        evidence.refit(cluster.now)
    assert evidence.counts == {"kept": 4000}


@pytest.mark.parametrize("jump", [-1e9, 1e9], ids=["back", "ahead"])
def test_times_that_jump_leave_the_speeds_as_they_are(jump: float) -> None:
    cluster, evidence = Cluster(11, drawn(11)), SpeedEvidence()
    cluster.run(evidence, 30)
    before = evidence.refit(cluster.now).estimates
    for node in cluster.speeds:
        evidence.completed(node, "t0", cluster.work["t0"] / cluster.speeds[node], cluster.now + jump)
    after = evidence.refit(cluster.now).estimates
    assert max(abs(after[node].speed / before[node].speed - 1.0) for node in before) < 0.05


def test_old_completions_weigh_less_than_new_ones() -> None:
    evidence = SpeedEvidence(memory_s=100.0)
    for node, seconds in (("a", 1.0), ("b", 1.0)):
        for _ in range(20):
            evidence.completed(node, "t", seconds, 0.0)
    for node, seconds in (("a", 1.0), ("b", 1.6)):
        for _ in range(20):
            evidence.completed(node, "t", seconds, 1000.0)
    estimates = evidence.refit(1000.0).estimates
    assert estimates["a"].speed / estimates["b"].speed == pytest.approx(1.6, rel=0.1)


@pytest.mark.parametrize(
    ("cpu_s", "at", "reason"),
    [
        (0.0, 0.0, "invalid"),
        (-1.0, 0.0, "invalid"),
        (math.nan, 0.0, "invalid"),
        (math.inf, 0.0, "invalid"),
        (1.0, math.nan, "invalid"),
        (SHORTEST_CPU_S / 2.0, 0.0, "short"),
    ],
)
def test_what_no_completion_can_be_is_refused_and_counted(cpu_s: float, at: float, reason: str) -> None:
    evidence = SpeedEvidence()
    assert not evidence.completed("a", "t", cpu_s, at)
    assert evidence.counts == {reason: 1}
    assert not evidence.refit(0.0).estimates


@pytest.mark.parametrize(("speed", "spread"), [(0.0, 0.1), (math.nan, 0.1), (1.0, 0.0), (None, math.inf)])
def test_a_prior_out_of_range_is_refused_by_name(speed: float | None, spread: float) -> None:
    with pytest.raises(InvalidInputError, match=r"SpeedPrior\.sp"):
        SpeedPrior(speed=speed, spread=spread)


def test_more_nodes_and_templates_than_there_is_room_for_are_counted_and_harm_nobody() -> None:
    evidence = SpeedEvidence(nodes=4, templates=3)
    for count in range(2000):
        evidence.completed(f"n{count % 5}", f"t{count % 50}", 1.0 + count % 3, float(count))
    assert evidence.counts["no_room"] == 400
    assert evidence.counts["kept"] == 1600
    evidence.forget("n0")
    assert evidence.completed("n4", "t0", 1.0, 0.0)
    fitted = evidence.refit(2000.0)
    assert set(fitted.estimates) <= {"n1", "n2", "n3", "n4"}
    assert all(math.isfinite(estimate.speed) for estimate in fitted.estimates.values())


def test_five_thousand_nodes_cost_less_than_fifty_microseconds_a_completion_and_twenty_mebibytes() -> None:
    nodes, templates = (
        [f"ip-10-0-{row // 256}-{row % 256}.internal" for row in range(5000)],
        [f"prod/cron-{row}" for row in range(400)],
    )
    generator = np.random.default_rng(12)
    order = [
        (nodes[int(n)], templates[int(t)])
        for n, t in zip(
            generator.integers(5000, size=5000 * KEPT_COMPLETIONS // 4),
            generator.integers(400, size=5000 * KEPT_COMPLETIONS // 4),
            strict=True,
        )
    ]
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    evidence = SpeedEvidence()
    for node, template in order:
        evidence.completed(node, template, 1.0, 0.0)
    held = (tracemalloc.get_traced_memory()[0] - before) / 2**20
    tracemalloc.stop()
    evidence.refit(0.0)
    started = time.process_time()
    for node, template in order[:20_000]:
        evidence.completed(node, template, 1.0, 0.0)
    each = (time.process_time() - started) / 20_000
    print(f"5,000 nodes: {held:.1f} MiB, {each * 1e6:.1f} us a completion")
    assert held < 20.0
    assert each < 50e-6
