"""Scenarios: what is simulated, read from versioned files. Refuses files with a field it does not know or lacks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

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
    """One kind of machine.

    Attributes:
        name: identifier.
        cores: allocatable CPU, cores.
        memory: allocatable memory, GiB.
        speed: speed per core relative to the reference core.
        weight: how often the class is drawn, relative to the others.
    """

    name: str
    cores: Positive
    memory: Positive
    speed: Positive
    weight: NotNegative = 1.0


@dataclass(frozen=True, config=CLOSED)
class PodClass:
    """One kind of workload.

    Attributes:
        name: identifier.
        kind: which shared resource it leans on, and so whom it disturbs.
        weight: how often the class is drawn, relative to the others.
        cpu: CPU request, cores, log-uniform between the two, in steps of 1/8.
        memory: memory request, GiB, log-uniform between the two, in steps of 1/8.
        duration: median time to completion on an idle reference core, seconds. For a service: of one unit of work.
        duration_sigma: sigma of the log-normal duration.
        slack: allowed slowdown against the duration, uniform between the two, >= 1; [0, 0] is best effort (no SLA).
        cpu_use: median use over request, CPU.
        memory_use: median use over request, memory.
        lifetime: mean number of units of work before the pod ends: 1 is a batch pod, more is a service, which has a
            deadline for each unit and starts the next at once.
    """

    name: str
    kind: Literal["cpu", "cache", "bandwidth"]
    weight: Number
    cpu: Range
    memory: Range
    duration: Positive
    duration_sigma: Number
    slack: Slack
    cpu_use: Number
    memory_use: Number
    lifetime: Annotated[float, Field(strict=True, ge=1.0)] = 1.0


@dataclass(frozen=True, config=CLOSED)
class Arrivals:
    """When pods arrive.

    Attributes:
        process: `poisson`, `bursty` (Markov-modulated Poisson, two states), or `trace`.
        day: length of the daily wave, seconds: a day is compressed so that an episode sees it.
        wave: amplitude of the daily wave, 0..1 of the mean rate.
        burst_rate: bursty only: rate during a burst, relative to the rate outside of one.
        burst_time: bursty only: mean length of a burst, seconds.
        calm_time: bursty only: mean time between bursts, seconds.
        trace: trace only: file name beside the scenarios, or a path; see `training.simulator.traces`.
        longest_gap: trace only: gaps are cut at this many mean gaps.
        duration_scale: trace only: durations are multiplied by this, to compress time.
        duration_range: trace only: durations are cut to this range, seconds, after scaling.
    """

    process: Literal["poisson", "bursty", "trace"] = "poisson"
    day: Positive = 1800.0
    wave: Annotated[float, Field(strict=True, ge=0.0, lt=1.0)] = 0.0
    burst_rate: Positive = 1.0
    burst_time: Positive = 60.0
    calm_time: Positive = 300.0
    trace: str = ""
    longest_gap: Positive = 10.0
    duration_scale: Positive = 1.0
    duration_range: Range = (10.0, 600.0)


@dataclass(frozen=True, config=CLOSED)
class Hidden:
    """What no scheduler sees directly.

    Attributes:
        decay_mean: mean of the Ornstein-Uhlenbeck process behind a node's lost share of capacity; negative values of
            the process count as none lost.
        decay_spread: its stationary standard deviation.
        decay_time: its correlation time, seconds.
        workload_spread: stationary standard deviation of the logarithm of a workload's use over its mean, shared by all
            pods of the class in a cluster.
        workload_time: its correlation time, seconds.
        cpu_use_sigma: sigma of the log-normal CPU use over request, one draw for each pod.
        memory_use_sigma: the same for memory.
        interference_sigma: standard deviation of a node's sensitivity to interference, relative to 1.
        node_loss_time: mean time until a node is lost, seconds; 0: never.
        node_return_time: mean time until a lost node returns, seconds.
        eviction_delay: seconds until the pods of a lost node are queued again.
    """

    decay_mean: Number = 0.0
    decay_spread: NotNegative = 0.0
    decay_time: Positive = 600.0
    workload_spread: NotNegative = 0.0
    workload_time: Positive = 300.0
    cpu_use_sigma: NotNegative = 0.0
    memory_use_sigma: NotNegative = 0.0
    interference_sigma: NotNegative = 0.0
    node_loss_time: NotNegative = 0.0
    node_return_time: Positive = 300.0
    eviction_delay: NotNegative = 40.0


@dataclass(frozen=True, config=CLOSED)
class Measurement:
    """How late and how well a scheduler sees.

    Attributes:
        scrape_interval: seconds between measurements, uniform between the two, one draw for each cluster.
        use_noise: relative standard deviation of measured use.
        pressure_noise: standard deviation of measured CPU pressure.
        estimated_pressure_share: share of clusters without PSI, where pressure is estimated from use.
    """

    scrape_interval: Range = (15.0, 60.0)
    use_noise: NotNegative = 0.0
    pressure_noise: NotNegative = 0.0
    estimated_pressure_share: Share = 0.0


@dataclass(frozen=True, config=CLOSED)
class Reward:
    """Weights of the terms of a node's reward, all >= 0; see `training.simulator.reward`."""

    lateness_weight: NotNegative = 1.0
    violation_weight: NotNegative = 1.0
    balance_weight: NotNegative = 0.0
    spread_weight: NotNegative = 0.0


@dataclass(frozen=True, config=CLOSED)
class Scenario:
    """Everything that defines an episode but its seed.

    Attributes:
        name: identifier.
        version: grows with every change of the file; reports name it.
        description: one sentence.
        nodes: nodes of each cluster.
        load: offered work over speed-weighted capacity, uniform between the two, one draw for each episode.
        episode_arrivals: steps of an episode in training, and arrivals that an evaluation counts.
        warmup_arrivals: first arrivals, on a cluster that is still filling, which metrics leave out.
        node_classes: machines that a cluster's nodes are drawn from.
        pod_classes: workloads; a trace names them.
    """

    name: str
    version: Annotated[int, Field(strict=True)]
    description: str
    nodes: Count
    load: Range
    episode_arrivals: Count
    warmup_arrivals: Annotated[int, Field(strict=True, ge=0)]
    node_classes: Annotated[tuple[NodeClass, ...], Field(min_length=1)]
    pod_classes: Annotated[tuple[PodClass, ...], Field(min_length=1)]
    arrivals: Arrivals = Arrivals()
    hidden: Hidden = Hidden()
    measurement: Measurement = Measurement()
    reward: Reward = Reward()

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


def load_scenario(name: str) -> Scenario:
    """The scenario of that name, or in the file of that path when the name ends in `.yaml`.

    Raises:
        InvalidInputError: there is none, or the file does not describe one; the message names the field.
    """
    path = Path(name) if name.endswith(".yaml") else FOLDER / f"{name}.yaml"
    hint = f"choose one of {list(scenario_names())} or give the path of a .yaml file"
    source = f"scenario {name!r}"
    return validated(Scenario, read_yaml(path, source, hint), source, str(FOLDER / "reference.yaml"))
