"""Scenarios: what is simulated, read from versioned files. Refuses files with a field it does not know or lacks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

from policy.criteria import CONTENTION_KNEE
from policy.errors import InvalidInputError
from training.files import read_yaml, validated

CLOSED: Final = ConfigDict(extra="forbid")

# Strict: neither text nor a truth value is a number.
Number = Annotated[float, Field(strict=True)]
Positive = Annotated[float, Field(strict=True, gt=0.0)]
NotNegative = Annotated[float, Field(strict=True, ge=0.0)]
Share = Annotated[float, Field(strict=True, ge=0.0, le=1.0)]
Count = Annotated[int, Field(strict=True, ge=1)]


def _rising(value: tuple[float, float]) -> tuple[float, float]:
    if value[0] > value[1]:
        raise ValueError(f"{list(value)} falls; give [low, high] with 0 < low <= high")
    return value


def _allowance(value: tuple[float, float]) -> tuple[float, float]:
    if value != (0.0, 0.0) and not 1.0 <= value[0] <= value[1]:
        raise ValueError(f"{list(value)}: give [low, high] with 1 <= low <= high, or [0, 0] for best effort")
    return value


Range = Annotated[tuple[Positive, Positive], AfterValidator(_rising)]
Slack = Annotated[tuple[NotNegative, NotNegative], AfterValidator(_allowance)]


@dataclass(frozen=True, config=CLOSED)
class NodeClass:
    """One kind of machine."""

    name: str
    cores: Positive  # allocatable CPU, cores
    memory: Positive  # allocatable memory, GiB
    speed: Positive  # speed per core relative to the reference core
    weight: NotNegative = 1.0  # how often the class is drawn, relative to the others


@dataclass(frozen=True, config=CLOSED)
class PodClass:
    """One kind of workload."""

    name: str
    kind: Literal["cpu", "cache", "bandwidth"]  # which shared resource it leans on, and so whom it disturbs
    weight: Number  # how often the class is drawn, relative to the others
    cpu: Range  # CPU request, cores, log-uniform between the two, in steps of 1/8
    memory: Range  # memory request, GiB, log-uniform between the two, in steps of 1/8
    # median time to completion on an idle reference core, seconds. For a service: of one unit of work.
    duration: Positive
    duration_sigma: Number  # sigma of the log-normal duration
    slack: Slack  # allowed slowdown against the duration, uniform between the two, >= 1; [0, 0] is best effort (no SLA)
    cpu_use: Number  # median use over request, CPU
    memory_use: Number  # median use over request, memory
    # mean number of units of work before the pod ends: 1 is a batch pod, more is a service, which has a deadline
    # for each unit and starts the next at once
    lifetime: Annotated[float, Field(strict=True, ge=1.0)] = 1.0
    # share of its pods that request nothing; they use what they would with the requests drawn for them
    unrequested: Share = 0.0


@dataclass(frozen=True, config=CLOSED)
class Arrivals:
    """When pods arrive."""

    # `poisson`, `bursty` (Markov-modulated Poisson, two states), or `trace`
    process: Literal["poisson", "bursty", "trace"] = "poisson"
    day: Positive = 1800.0  # length of the daily wave, seconds: a day is compressed so that an episode sees it
    # amplitude of the daily wave, 0..1 of the mean rate
    wave: Annotated[float, Field(strict=True, ge=0.0, lt=1.0)] = 0.0
    burst_rate: Positive = 1.0  # bursty only: rate during a burst, relative to the rate outside of one
    burst_time: Positive = 60.0  # bursty only: mean length of a burst, seconds
    calm_time: Positive = 300.0  # bursty only: mean time between bursts, seconds
    # pods that arrive at once with the same class, requests and SLA, as a new workload's replicas do; not with a trace
    replicas: Count = 1
    trace: str = ""  # trace only: file name beside the scenarios, or a path; see `training.simulator.traces`
    longest_gap: Positive = 10.0  # trace only: gaps are cut at this many mean gaps
    duration_scale: Positive = 1.0  # trace only: durations are multiplied by this, to compress time
    duration_range: Range = (10.0, 600.0)  # trace only: durations are cut to this range, seconds, after scaling


@dataclass(frozen=True, config=CLOSED)
class Hidden:
    """What no scheduler sees directly."""

    # mean of the Ornstein-Uhlenbeck process behind a node's lost share of capacity; negative values of the process
    # count as none lost
    decay_mean: Number = 0.0
    decay_spread: NotNegative = 0.0  # its stationary standard deviation
    decay_time: Positive = 600.0  # its correlation time, seconds
    # stationary standard deviation of the logarithm of a workload's use over its mean, shared by all pods of the
    # class in a cluster
    workload_spread: NotNegative = 0.0
    workload_time: Positive = 300.0  # its correlation time, seconds
    cpu_use_sigma: NotNegative = 0.0  # sigma of the log-normal CPU use over request, one draw for each pod
    memory_use_sigma: NotNegative = 0.0  # the same for memory
    # median memory use over request of all pods, uniform between the two, one draw for each cluster; by default each
    # class has its own
    memory_use: Range | None = None
    interference_sigma: NotNegative = 0.0  # standard deviation of a node's sensitivity to interference, relative to 1
    node_loss_time: NotNegative = 0.0  # mean time until a node is lost, seconds; 0: never
    node_return_time: Positive = 300.0  # mean time until a lost node returns, seconds
    eviction_delay: NotNegative = 40.0  # seconds until the pods of a lost node are queued again
    throttled_share: Share = 0.0  # share of nodes that are throttled, which neither a label nor pressure shows
    # share of the time that such a node's tasks stand still: longer runs, equal CPU time
    throttled_loss: Annotated[float, Field(strict=True, ge=0.0, lt=1.0)] = 0.5


@dataclass(frozen=True, config=CLOSED)
class Contention:
    """How neighbours slow each other; see `training.simulator.contention`."""

    # use of the node from which they do
    knee: Annotated[float, Field(strict=True, ge=0.0, lt=1.0)] = CONTENTION_KNEE
    scale: NotNegative = 1.0  # what they take of the rate, relative to the table of kinds


@dataclass(frozen=True, config=CLOSED)
class Measurement:
    """How late and how well a scheduler sees."""

    # seconds between measurements, uniform between the two, one draw for each cluster
    scrape_interval: Range = (15.0, 60.0)
    use_noise: NotNegative = 0.0  # relative standard deviation of measured use
    pressure_noise: NotNegative = 0.0  # standard deviation of measured CPU pressure
    estimated_pressure_share: Share = 0.0  # share of clusters without PSI, where pressure is estimated from use


@dataclass(frozen=True, config=CLOSED)
class Reward:
    """Weights of the terms of a node's reward, all >= 0; see `training.simulator.reward`."""

    lateness_weight: NotNegative = 1.0
    violation_weight: NotNegative = 1.0
    balance_weight: NotNegative = 0.0
    spread_weight: NotNegative = 0.0


@dataclass(frozen=True, config=CLOSED)
class TemplateSettings:
    """Which pods are alike; see `training.simulator.pod_templates`. Changes what can be learned, and no episode."""

    count: Count = 8  # templates of each class of pods
    noise: Positive = 0.2  # standard deviation of log work between the pods of one template
    # share of templates of batch pods whose pods show how long they may take. Assumption: half of the jobs have a
    # deadline or are of a CronJob
    deadlines: Share = 0.5


@dataclass(frozen=True, config=CLOSED)
class Scenario:
    """Everything that defines an episode but its seed."""

    name: str
    version: Annotated[int, Field(strict=True)]  # grows with every change of the file; reports name it
    description: str  # one sentence
    nodes: Count  # nodes of each cluster
    load: Range  # offered work over speed-weighted capacity, uniform between the two, one draw for each episode
    episode_arrivals: Count  # steps of an episode in training, and arrivals that an evaluation counts
    # first arrivals, on a cluster that is still filling, which metrics leave out
    warmup_arrivals: Annotated[int, Field(strict=True, ge=0)]
    # machines that a cluster's nodes are drawn from
    node_classes: Annotated[tuple[NodeClass, ...], Field(min_length=1)]
    pod_classes: Annotated[tuple[PodClass, ...], Field(min_length=1)]  # workloads; a trace names them
    arrivals: Arrivals = Arrivals()
    hidden: Hidden = Hidden()
    contention: Contention = Contention()
    measurement: Measurement = Measurement()
    templates: TemplateSettings = TemplateSettings()
    reward: Reward = Reward()

    @model_validator(mode="after")
    def _replicas_are_drawn(self) -> Self:
        if self.arrivals.replicas > 1 and self.arrivals.process == "trace":
            raise ValueError("arrivals.replicas groups drawn pods; a trace has its own, so leave it out")
        return self

    @model_validator(mode="after")
    def _warms_up_within_the_episode(self) -> Self:
        if self.warmup_arrivals >= self.episode_arrivals:
            raise ValueError(
                f"warmup_arrivals {self.warmup_arrivals} is not below episode_arrivals {self.episode_arrivals}"
            )
        return self

    def resized(self, nodes: int) -> Scenario:
        """The scenario with another number of nodes, over the same time.

        Arrivals are as many times more frequent as there are nodes, so an episode and its warm-up need as many more.

        Raises:
            InvalidInputError: nodes is below 1.
        """
        if nodes < 1:
            raise InvalidInputError(f"nodes is {nodes}; give at least 1")
        return replace(
            self,
            nodes=nodes,
            episode_arrivals=max(2, self.episode_arrivals * nodes // self.nodes),
            warmup_arrivals=self.warmup_arrivals * nodes // self.nodes,
        )


FOLDER: Final = Path(__file__).parent / "scenarios"


def scenario_names() -> tuple[str, ...]:
    """Names that `load_scenario` knows."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.yaml")))


def load_scenario(name: str, known: Sequence[str] = ()) -> Scenario:
    """The scenario of that name, or in the file of that path when the name ends in `.yaml`.

    Args:
        name: of the scenario, or a path.
        known: names that an error offers; default: `scenario_names`.

    Raises:
        InvalidInputError: there is none, or the file does not describe one; the message names the field.
    """
    path = Path(name) if name.endswith(".yaml") else FOLDER / f"{name}.yaml"
    hint = f"choose one of {list(known or scenario_names())} or give the path of a .yaml file"
    source = f"scenario {name!r}"
    return validated(Scenario, read_yaml(path, source, hint), source, str(FOLDER / "reference.yaml"))
