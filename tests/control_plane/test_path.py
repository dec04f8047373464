"""The whole path: a real kube-scheduler binds real pods on what the extender answers, and the extender knows why."""

import random
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pytest

from policy.bundle import load_bundle, shipped_bundle_path
from tests.bench.report import Result
from tests.control_plane.access import Manifest
from tests.control_plane.cluster import ControlPlane
from tests.control_plane.extender_process import Decision, Extender, running_extender
from tests.control_plane.scheduler import PROFILE, kube_scheduler, shipped_configuration
from tests.control_plane.workload import Bind, Binds, create, create_nodes, node, pod

SPEED = "maddpg-scheduler.io/speed"
URGENCY = "maddpg-scheduler.io/urgency"
ZONE = "topology.kubernetes.io/zone"

MACHINES = [
    # cores, GiB, speed per core
    (8, 32, "0.7"),
    (16, 64, "0.85"),
    (16, 128, "1.0"),
    (32, 128, "1.2"),
    (64, 256, "1.5"),
]
POINTS_A_LEVEL = 100
"""What one level of our priority is worth in kube-scheduler's sum: x 10, x the weight of 10 in the shipped file."""

NODE_AFFINITY_POINTS = 200
"""The most that preferring nodes by label is worth: 100 x NodeAffinity's default weight of 2."""

Record = Callable[[Result], None]


def _mixed_nodes(count: int) -> list[Manifest]:
    """Nodes of all sizes and speeds in two zones; half of them have their speed as a label, half as an annotation."""
    made = []
    for number in range(count):
        cores, memory, speed = MACHINES[number % len(MACHINES)]
        place = {ZONE: f"zone-{number % 2}"}
        made.append(
            node(
                f"node-{number}",
                cpu=str(cores),
                memory=f"{memory}Gi",
                labels=place | ({SPEED: speed} if number % 4 < 2 else {}),
                annotations={} if number % 4 < 2 else {SPEED: speed},
            )
        )
    return made


def _mixed_pods(count: int, choosy_share: float, seed: int = 1) -> list[Manifest]:
    """Pods of several sizes and urgencies; a share of them prefers one zone, which in-tree plugins weigh."""
    draw = random.Random(seed)
    made = []
    for number in range(count):
        cores = draw.choice([0.25, 0.5, 1, 2, 4])
        each = pod(
            f"pod-{number}",
            cpu=f"{int(cores * 1000)}m",
            memory=f"{int(cores * draw.choice([1024, 2048, 4096]))}Mi",
            scheduler=PROFILE,
            annotations={
                URGENCY: draw.choice(["0", "0.3", "0.6", "0.9"]),
                "kwok.x-k8s.io/usage-cpu": f"{int(cores * draw.uniform(200, 900))}m",
                "kwok.x-k8s.io/usage-memory": "256Mi",
            },
        )
        if draw.random() < choosy_share:
            zone = f"zone-{draw.randrange(2)}"
            term = {"matchExpressions": [{"key": ZONE, "operator": "In", "values": [zone]}]}
            preferred = [{"weight": 100, "preference": term}]
            each["metadata"]["labels"] = {"prefers": zone}
            each["spec"]["affinity"] = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}
        made.append(each)
    return made


def _outcomes(extender: Extender, bound: Mapping[str, Bind], timeout_s: float = 10.0) -> dict[str, Decision]:
    """The decisions once the extender's own watch has shown all these binds."""
    deadline = time.monotonic() + timeout_s
    while True:
        decisions = extender.decisions()
        shown = {name for name, each in decisions.items() if (each["outcome"] or {}).get("node")}
        if bound.keys() <= shown or time.monotonic() > deadline:
            return decisions
        time.sleep(0.2)


def _names(objects: list[Manifest]) -> list[str]:
    return [each["metadata"]["name"] for each in objects]


def _unexplained(decisions: Mapping[str, Decision], pods: list[Manifest], nodes: list[Manifest]) -> list[str]:
    """Pods on a node below our best that no in-tree score can have moved there.

    Nothing but the preferred zone tells these nodes apart for the plugins that stay on. It is worth
    NODE_AFFINITY_POINTS to every node there, so it can win against our levels that make up those points, and no more.
    """
    zones = {each["metadata"]["name"]: each["metadata"]["labels"][ZONE] for each in nodes}
    prefers = {each["metadata"]["name"]: each["metadata"]["labels"].get("prefers") for each in pods}
    wrong = []
    for name, decision in decisions.items():
        outcome = decision["outcome"]
        if outcome["among_best"]:
            continue
        lost = decision["top"][0]["priority"] - outcome["priority"]
        wanted = prefers[name] is not None and zones[outcome["node"]] == prefers[name]
        if not wanted or lost * POINTS_A_LEVEL > NODE_AFFINITY_POINTS:
            wrong.append(f"{name} on {outcome['node']}: {lost} levels below the best, prefers {prefers[name]}")
    return wrong


@pytest.mark.timeout(180, func_only=True)
def test_thousand_pods_are_bound_to_nodes_rated_best(cluster: ControlPlane, record: Record) -> None:
    nodes, pods = _mixed_nodes(200), _mixed_pods(1000, choosy_share=0.1)
    create_nodes(cluster.api, nodes)
    with running_extender(cluster) as extender:
        configuration = shipped_configuration(extender.url, ignorable=False)
        with kube_scheduler(cluster, configuration, "1.37.2"), Binds(cluster.api) as binds:
            started = time.monotonic()
            create(cluster.api, pods)
            bound = binds.wait(_names(pods), timeout_s=120)
        decisions, counts = _outcomes(extender, bound), extender.counts()
        late = extender.metric("maddpg_fallbacks_total")
        unknown = extender.metric("maddpg_unknown_nodes_total")
    elapsed = max(bind.at for bind in bound.values()) - started

    agreed = {
        name for name, each in decisions.items() if each["outcome"] and each["outcome"]["node"] == bound[name].node
    }
    assert agreed == set(_names(pods)), "a bind without its decision record"
    assert counts["not_asked"] == 0
    shipped = load_bundle(shipped_bundle_path()).manifest.name
    assert {each["scorer"] for each in decisions.values() if each["fallback_reason"] is None} == {shipped}
    plain = {each["metadata"]["name"] for each in pods if "affinity" not in each["spec"]}
    best = Counter(name in plain for name, each in decisions.items() if each["outcome"]["among_best"])
    unexplained = _unexplained(decisions, pods, nodes)
    share = best[True] / len(plain)
    rated = [each["rated_best"] for each in decisions.values()]
    record(Result("1,000 pods on 200 nodes: bound", len(bound), "pods", at_least=1000))
    record(Result("1,000 pods on 200 nodes: binds with their decision record", len(agreed), "pods", at_least=1000))
    record(Result("on a node rated best, where no in-tree score differs", 100 * share, "%", at_least=95))
    record(Result("on a node rated best, where the pod prefers a zone", 100 * best[False] / (1000 - len(plain)), "%"))
    record(Result("on a lower node that in-tree scores do not explain", len(unexplained), "pods", at_most=0))
    record(Result("mean number of nodes alike at the top", sum(rated) / len(rated), "nodes"))
    record(Result("pods created and bound, two busy cores", 1000 / elapsed, "1/s"))
    record(Result("answered by the fallback", late, "decisions"))
    assert share >= 0.95
    assert unexplained == []
    assert unknown == 0, "the watch had shown every node before kube-scheduler asked"


@dataclass(frozen=True)
class Scored:
    """What kube-scheduler said of one pod's nodes at log level 10, by node."""

    extender: dict[str, int]
    total: dict[str, int]


def _scores(log: str) -> dict[str, Scored]:
    """The last scores of each pod in kube-scheduler's log.

    https://github.com/kubernetes/kubernetes/blob/v1.37.2/pkg/scheduler/schedule_one.go (prioritizeNodes)
    """
    found: dict[str, Scored] = {}
    for line in log.splitlines():
        given = re.search(r'"Extender scored node for pod" pod="default/([^"]+)".* node="([^"]+)" score=(\d+)', line)
        final = re.search(
            r'"Calculated node\'s final score for pod" pod="default/([^"]+)" node="([^"]+)" score=(\d+)', line
        )
        for match, kind in ((given, "extender"), (final, "total")):
            if match:
                scored = found.setdefault(match[1], Scored({}, {}))
                getattr(scored, kind)[match[2]] = int(match[3])
    return found


@pytest.mark.timeout(120, func_only=True)
@pytest.mark.parametrize("every_node", [False, True], ids=["above zero", "every node"])
def test_every_choice_follows_from_our_priority_and_the_scores_in_tree(
    cluster: ControlPlane, record: Record, every_node: bool
) -> None:
    nodes, pods = _mixed_nodes(40), _mixed_pods(200, choosy_share=0.5, seed=2)
    create_nodes(cluster.api, nodes)
    with running_extender(cluster, answer_every_node=every_node) as extender:
        configuration = shipped_configuration(extender.url, ignorable=False, nodeCacheCapable=False)
        with kube_scheduler(cluster, configuration, "1.35.4", verbosity=10) as scheduler, Binds(cluster.api) as binds:
            create(cluster.api, pods)
            bound = binds.wait(_names(pods), timeout_s=90)
            scores = _scores(scheduler.process.log())
        decisions = _outcomes(extender, bound)
    assert decisions.keys() == scores.keys() == bound.keys()
    outweighed = 0
    for name, decision in decisions.items():
        chosen, scored = bound[name].node, scores[name]
        assert scored.total[chosen] == max(scored.total.values()), f"{name}: kube-scheduler took a lower sum"
        assert decision["outcome"]["node"] == chosen
        ours = {where: scored.extender.get(where, 0) for where in scored.total}
        assert decision["outcome"]["priority"] == ours[chosen], f"{name}: another priority was sent"
        assert len(ours) == decision["candidates"]
        assert len(scored.extender) == len(ours) if every_node else 0 not in scored.extender.values()
        best = [where for where, priority in ours.items() if priority == max(ours.values())]
        assert best == [decision["assumed"]] == [decision["top"][0]["node"]], f"{name}: not one node above all others"
        assert decision["outcome"]["among_best"] == (chosen in best)
        if chosen not in best:
            outweighed += 1
            in_tree = {where: total - POINTS_A_LEVEL * ours[where] for where, total in scored.total.items()}
            assert in_tree[chosen] - in_tree[best[0]] >= POINTS_A_LEVEL * (ours[best[0]] - ours[chosen])
    record(Result("kube-scheduler 1.35.4, whole Node objects: bound", len(bound), "pods", at_least=200))
    record(Result("on a node rated best, half of the pods prefer a zone", 100 - outweighed / 2, "%"))
    record(Result("lower choices that the final scores in its log explain", outweighed, "pods"))


@pytest.mark.timeout(90, func_only=True)
@pytest.mark.parametrize("scorer", ["policy", "kube-default"])
def test_burst_of_equal_pods_does_not_herd(cluster: ControlPlane, record: Record, scorer: str) -> None:
    # Names of their own: metrics-server still tells of use on earlier tests' nodes, and equal nodes must look equal.
    nodes = [node(f"{scorer}-{number}", cpu="16", memory="64Gi") for number in range(20)]
    pods = [pod(f"pod-{number}", cpu="800m", memory="3Gi", scheduler=PROFILE) for number in range(100)]
    create_nodes(cluster.api, nodes)
    create(cluster.api, pods)
    with running_extender(cluster, scorer=scorer) as extender:
        configuration = shipped_configuration(extender.url, ignorable=False)
        with Binds(cluster.api) as binds, kube_scheduler(cluster, configuration):
            bound = binds.wait(_names(pods), timeout_s=60)
        _outcomes(extender, bound)
        assert extender.metric("maddpg_assumed_placements") == 0, "an assumption was never confirmed"
    per_node = Counter(bind.node for bind in bound.values())
    most, fewest = max(per_node.values()), min(per_node[name] for name in _names(nodes))
    mean = len(pods) / len(nodes)
    record(Result(f"100 equal pods at once on 20 equal nodes, {scorer}: most on one", most, "pods", at_most=1.4 * mean))
    record(Result(f"100 equal pods at once on 20 equal nodes, {scorer}: fewest on one", fewest, "pods"))
    assert most <= 1.4 * mean, "one more pod is worth less than a level: drawing would give 10 to 12"


@pytest.mark.timeout(90, func_only=True)
def test_scorer_that_is_always_late_is_replaced_by_the_fallback(cluster: ControlPlane, record: Record) -> None:
    nodes, pods = _mixed_nodes(10), _mixed_pods(30, choosy_share=0.0, seed=3)
    create_nodes(cluster.api, nodes)
    with running_extender(cluster, deadline_ms=0.001, fallback="most-allocated") as extender:
        configuration = shipped_configuration(extender.url, ignorable=False)
        with kube_scheduler(cluster, configuration), Binds(cluster.api) as binds:
            create(cluster.api, pods)
            bound = binds.wait(_names(pods), timeout_s=60)
        decisions = _outcomes(extender, bound)
        counted = extender.metric("maddpg_fallbacks_total")
        late = extender.metric("maddpg_fallbacks_total", reason="late")
    fallen = {name for name, each in decisions.items() if each["fallback_reason"] is not None}
    assert {decisions[name]["scorer"] for name in fallen} == {"most-allocated"}
    assert {decisions[name]["fallback_reason"] for name in fallen} <= {"late", "busy"}
    assert late >= 1
    assert counted == len(fallen)
    record(Result("deadline of a microsecond: bound", len(bound), "pods", at_least=30))
    record(Result("deadline of a microsecond: answered by the fallback", len(fallen), "pods", at_least=1))


@pytest.mark.timeout(90, func_only=True)
def test_pods_with_one_feasible_node_have_their_records_without_a_question(cluster: ControlPlane) -> None:
    nodes = [node(f"only-{number}") for number in range(3)]
    pods = [pod(f"picky-{number}", scheduler=PROFILE) for number in range(5)]
    for each in pods:
        each["spec"]["nodeSelector"] = {"kubernetes.io/hostname": "only-1"}
    create_nodes(cluster.api, nodes)
    with running_extender(cluster) as extender:
        configuration = shipped_configuration(extender.url, ignorable=False)
        with kube_scheduler(cluster, configuration), Binds(cluster.api) as binds:
            create(cluster.api, pods)
            bound = binds.wait(_names(pods), timeout_s=60)
        decisions = _outcomes(extender, bound)
        assert extender.metric("maddpg_requests_total") == 0
        counts = extender.counts()
    told = {(name, each["verb"], each["scorer"], each["outcome"]["node"]) for name, each in decisions.items()}
    assert told == {(name, "watch", "only-feasible", "only-1") for name in _names(pods)}
    assert (counts["bound"], counts["not_asked"]) == (len(pods), 0)
