"""Explanations as sentences for people: commands print them, the dashboard shows them. Refuses to look anything up."""

from __future__ import annotations

from typing import Any, Final

from policy.shortage import LARGEST_CHANCE

NAMES: Final = {
    "headroom": "headroom (CPU and memory left unrequested)",
    "balance": "balance of requested CPU and memory",
    "expected_speed": "expected speed",
    "in_time": "the chance to be in time",
    "neighbours": "how little it slows its neighbours",
    "room": "room (CPU and memory left unrequested, and memory that will not run out)",
    "constant": "the node's own price",
    "memory_shortage": "safety from running out of memory",
    "cpu_requested": "requested CPU",
    "memory_requested": "requested memory",
    "cpu_used": "used CPU",
    "memory_used": "used memory",
    "cpu_pressure": "CPU pressure",
    "node_speed": "speed relative to the reference core",
}
"""Contributions and features in words. More of a contribution is better, so that is how it reads."""

LEAST: Final = 0.0005
"""Differences of preferences below this are not worth a word."""

SMALLEST: Final = 0.00005
"""Lags below this are none: rounding, by which equal nodes may differ that are rated at different times."""


def gains(node: dict[str, Any], other: dict[str, Any]) -> dict[str, float] | None:
    """Return by how much each contribution of a node exceeds that of another; None where one of them has none."""
    ours, theirs = node["contributions"], other["contributions"]
    return None if ours is None or theirs is None else {name: value - theirs[name] for name, value in ours.items()}


def of_decision(told: dict[str, Any]) -> list[str]:
    """Return what an explanation says, as `extender.history.explain.explained` returns it."""
    return [*_question(told), *_answer(told), *_usual(told), *_second(told), *_outcome(told)]


def of_node(told: dict[str, Any], decision: dict[str, Any]) -> list[str]:
    """Return why a node was not preferred: ``why_not`` of an explanation."""
    node = told["node"]
    if told["rank"] is None:
        return [f"{node} was not rated: {told['why']}."]
    rank = told["kube_default"]["rank"]
    said = [
        f"{node} was number {told['rank']} of {decision['candidates']} nodes, with priority {told['priority']} of 10 "
        f"and preference {told['preference']:.3f}" + (f"; kube-default has it as number {rank}." if rank else ".")
    ]
    if told["odd"]:
        said.append("It is odd: its features lie beyond what the scorer is trusted with, so it was judged apart.")
    lost = {name: value for name, value in (told["lost_by"] or {}).items() if abs(value) >= LEAST}
    if told["rank"] > 1 and lost:
        parts = [f"{_named(name)} ({-value:+.3f})" for name, value in sorted(lost.items(), key=lambda it: -it[1])]
        said.append(f"Compared with the best node, its preference differs by {_and(parts)}.")
    if told["rank"] == 1:
        said.append("It was the best node.")
    elif told["counterfactual"] is not None:
        said.append(_changes(node, told["counterfactual"]))
    return said


def of_replicas(told: dict[str, Any]) -> list[str]:
    """Return which replica remembers, and which did not answer; empty where this one remembers itself."""
    if "replica" not in told:
        return []
    silent = [f"{who} ({why})" for who, why in told["silent"].items()]
    said = [f"This is what the replica {told['replica']} remembers."]
    return [*said, f"No answer came from the replica {_and(silent)}."] if silent else said


def _question(told: dict[str, Any]) -> list[str]:
    pod, demand = told["pod"], told["demand"]
    said = [
        f"Pod {pod['namespace']}/{pod['name']} asks for {demand['cpu']:g} cores and {demand['memory']:g} GiB"
        + (
            ""
            if (demand["cpu"], demand["memory"]) == (demand["cpu_nonzero"], demand["memory_nonzero"])
            else f" (counted as {demand['cpu_nonzero']:g} and {demand['memory_nonzero']:g})"
        )
        + f"; its urgency is {demand['urgency']:.3g}"
        + (f" ({told['urgency']['reason']})." if told["urgency"]["reason"] else ".")
    ]
    if told["warning"]:
        said.append(f"Warning: {told['warning']}.")
    return said


def _answer(told: dict[str, Any]) -> list[str]:
    by = f"The fallback {told['scorer']} ({told['fallback_reason']})" if told["fallback_reason"] else told["scorer"]
    nodes = told["nodes"]
    if not nodes:
        return [f"{by} rated {told['candidates']} nodes, and none was known."]
    best = nodes[0]
    said = [f"{by} rated {told['candidates']} nodes; {best['node']} is best, with preference {best['preference']:.3f}"]
    if len(nodes) > 1:
        second = nodes[1]
        said[0] += f", {best['preference'] - second['preference']:.3f} ahead of {second['node']}"
        gained = gains(best, second)
        if gained is not None:
            name = max(gained, key=lambda each: gained[each])
            ahead = best["preference"] - second["preference"]
            whole = abs(ahead - sum(gained.values())) < LEAST  # not where one of the two is odd and was judged apart
            if whole and min(ahead, gained[name]) >= LEAST:
                said[0] += f", most of it by {_named(name)} ({gained[name]:+.3f})"
    said[0] += "."
    if best["memory_shortage_chance"] > LARGEST_CHANCE:
        said.append(f"Memory may run out on {best['node']} (chance {best['memory_shortage_chance']:.0%}).")
    if told["rated_best"] > 1:
        said.append(f"{told['rated_best']} nodes would have shared the highest priority; one was singled out.")
    if told["unknown_nodes"]:
        said.append(f"{told['unknown_nodes']} of the nodes were unknown and got the neutral priority.")
    odd = told["odd_nodes"]
    if odd["count"]:
        some = [f"{node} ({why})" for node, why in odd["some"].items()]
        said.append(f"{odd['count']} nodes were odd and judged apart, such as {_and(some)}.")
    return said


def _usual(told: dict[str, Any]) -> list[str]:
    version, choice = told["kube_default_version"], told["kube_default_choice"]
    if choice is None:
        return ["kube-default's choice is not known: the other nodes of the decision are no longer remembered."]
    if not choice:
        return []
    if told["nodes"][0]["node"] in choice:
        alike = told["kube_default_alike"] - 1
        also = f", which it rates like {alike} other nodes" if alike else ""
        return [f"kube-default of Kubernetes {version} would have preferred the same node{also}."]
    others = told["kube_default_alike"] - len(choice[:3])
    names = " or ".join(choice[:3]) + (f" or one of {others} others that it rates alike" if others > 0 else "")
    rank = told["nodes"][0]["kube_default"]["rank"]
    return [
        f"kube-default of Kubernetes {version} would have preferred {names}; it has the best node as number {rank}."
    ]


def _second(told: dict[str, Any]) -> list[str]:
    if told["unexplained"]:
        return [f"What would have to change is not known: {told['unexplained']}."]
    other = told["counterfactual"]
    return [] if other is None else [_changes(other["node"], other)]


def _changes(node: str, told: dict[str, Any]) -> str:
    if told["behind_by"] < SMALLEST:
        return f"{node} was preferred as much as the best node."
    behind = f"{node} was {told['behind_by']:.4f} behind"
    if not told["changes"]:
        return f"{behind}; no better value of one of its features alone would have made it win."
    parts = []
    for it in told["changes"]:
        plus = 1.0 if it["feature"] == "node_speed" else 0.0  # the feature is the speed minus 1
        parts.append(f"{_named(it['feature'])} {it['after'] + plus:.4g} instead of {it['before'] + plus:.4g}")
    return f"{behind}; each of these alone would have made it win: {', '.join(parts)}."


def _outcome(told: dict[str, Any]) -> list[str]:
    outcome, state = told["outcome"], told["state"]
    if outcome is None:
        return ["Nothing has been seen of the pod since."]
    if outcome["node"] is None:
        return [f"The pod is not bound ({state})" + (f": {outcome['message']}" if outcome["message"] else ".")]
    said = f"The pod was bound to {outcome['node']}"
    said += f", whose priority was {outcome['priority']}" if outcome["priority"] is not None else ""
    said += f", after {outcome['bind_s']:.2f} s" if outcome["bind_s"] is not None else ""
    said += "." if state == "bound" else f"; it is now {state}."
    if outcome["late"] is not None:
        said += " It was late." if outcome["late"] else " It was not late."
    return [said]


def _named(name: str) -> str:
    """A criterion or feature in words; one that only another version knows by its name."""
    return NAMES.get(name, name)


def _and(parts: list[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
