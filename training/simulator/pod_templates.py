"""Templates of pods: which pods are alike, and what the pods of a template show of how urgent they are.

Nothing that happens in an episode depends on templates, so every episode is the same with and without them: pods are
drawn as the scenario says, and each is then given to one of the templates that its work makes likely. Pods of a
template differ in their requests here, which no estimator looks at.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import NDArray

from policy.urgency import Signs, UrgencyRules, urgency_of
from training.simulator import draws
from training.simulator.draws import FloatArray, Seeds, Stream
from training.simulator.knowledge import Told
from training.simulator.scenarios import Scenario
from training.simulator.workload import Workload

_SHARES: Final = np.linspace(0.001, 0.999, 999)
_NORMALS: Final = np.array([NormalDist().inv_cdf(share) for share in _SHARES.tolist()])
"""The normal distribution's quantiles, to interpolate between."""

INFERRING: Final = UrgencyRules()
BY_QOS_ALONE: Final = UrgencyRules(inferred=False)


@dataclass(slots=True)
class Templates:
    """The templates of each cluster: `k` for each of `w` classes of pods."""

    log_work: FloatArray  # mean logarithm of the work of a template's pods, ``[clusters, w, k]``
    shows_deadline: NDArray[np.bool_]  # whether its pods show how long they may take, ``[clusters, w, k]``


def draw_templates(workload: Workload, seeds: Seeds) -> Templates:
    """Draw the templates of every cluster.

    Their means follow a normal distribution, one template in each of `k` parts of equal probability, so that with the
    noise between the pods of a template the class has the spread that its pods have.
    """
    settings, classes = workload.scenario.templates, len(workload.log_work)
    index = np.arange(classes * settings.count)
    within = (index % settings.count + draws.uniform(seeds[:, None], Stream.TEMPLATE, index)) / settings.count
    centre, spread = np.array(workload.log_work).T[..., None]
    between = np.sqrt(np.maximum(spread**2 - settings.noise**2, 0.0))
    normal = np.interp(within, _SHARES, _NORMALS).reshape(-1, classes, settings.count)
    shows = draws.uniform(seeds[:, None], Stream.DEADLINE, index) < settings.deadlines
    return Templates(centre + between * normal, shows.reshape(normal.shape))


def template_of(
    templates: Templates,
    noise: float,
    seeds: Seeds,
    row: NDArray[np.intp],
    number: NDArray[np.int64],
    kind: NDArray[np.int64],
    work: FloatArray,
) -> NDArray[np.int64]:
    """Return the template of each pod, ``[pods]``, counted over all classes: kind x k and its place in the class.

    It is drawn from the probabilities that the pod's work gives to the templates of its class, by Gumbel's maximum.

    Args:
        templates: of every cluster.
        noise: standard deviation of log work between the pods of a template.
        seeds: of every cluster's episode.
        row: cluster of each pod, ``[pods]`` as what follows.
        number: its number in order of arrival.
        kind: its class.
        work: its work, reference seconds.
    """
    count = templates.log_work.shape[2]
    likely = -0.5 * ((np.log(work)[:, None] - templates.log_work[row, kind]) / noise) ** 2
    luck = draws.uniform(seeds[row][:, None], Stream.POD_TEMPLATE, number[:, None] * count + np.arange(count))
    within = np.argmax(likely - np.log(-np.log(np.maximum(luck, 1e-300))), axis=1)
    return np.asarray(kind * count + within, dtype=np.int64)


@dataclass(slots=True)
class Shown:
    """Pods that are to be placed, and all that their clusters know of them; ``[clusters]`` but for the scenario."""

    scenario: Scenario
    number: NDArray[np.int64]  # in order of arrival
    kind: NDArray[np.int64]
    template: NDArray[np.int64]  # as `template_of` counts
    requests: NDArray[np.bool_]  # whether it requests anything
    slack: FloatArray  # allowed slowdown; 0 is best effort
    work: FloatArray  # reference seconds


def tell_urgency(told: Told, templates: Templates, seeds: Seeds, pods: Shown, labelled: FloatArray) -> FloatArray:
    """Return the urgency that each cluster is told of its pod, ``[clusters]``; `labelled` where the pod says it.

    A batch pod is of a Job, and shows as its deadline the time that its SLA really allows, if its template shows
    deadlines; a service is of a ReplicaSet and has a readiness probe. What follows from that, serving's
    `policy.urgency` says.
    """
    urgency = labelled.copy()
    silent = draws.uniform(seeds, Stream.URGENCY_LABEL, pods.number) < told.urgency_missing
    shown = templates.shows_deadline.reshape(len(seeds), -1)
    learned = told.expected_s.shape[1] > 0
    for row in np.flatnonzero(silent).tolist():
        batch = pods.scenario.pod_classes[int(pods.kind[row])].lifetime == 1.0
        template, slack = int(pods.template[row]), float(pods.slack[row])
        runs = int(told.runs[row, template]) if learned else 0
        signs = Signs(
            qos="Burstable" if pods.requests[row] else "BestEffort",
            owner_kind="Job" if batch else "ReplicaSet",
            serves=not batch,
            deadline_s=slack * float(pods.work[row]) if batch and slack > 0.0 and shown[row, template] else None,
            expected_s=float(told.expected_s[row, template]) if runs else None,
            runs=runs,
        )
        urgency[row] = urgency_of(signs, INFERRING if told.inferred[row] else BY_QOS_ALONE).value
    return urgency
