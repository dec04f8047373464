"""Scenarios: what is simulated, read from versioned files. Refuses files with a field it does not know or lacks."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, get_args, get_origin, get_type_hints

import yaml

from policy.errors import InvalidInputError

Range = tuple[float, float]
Kind = Literal["cpu", "cache", "bandwidth"]


@dataclass(frozen=True, slots=True)
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
    cores: float
    memory: float
    speed: float
    weight: float


@dataclass(frozen=True, slots=True)
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
    kind: Kind
    weight: float
    cpu: Range
    memory: Range
    duration: float
    duration_sigma: float
    slack: Range
    cpu_use: float
    memory_use: float
    lifetime: float = 1.0


@dataclass(frozen=True, slots=True)
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
    day: float = 1800.0
    wave: float = 0.0
    burst_rate: float = 1.0
    burst_time: float = 60.0
    calm_time: float = 300.0
    trace: str = ""
    longest_gap: float = 10.0
    duration_scale: float = 1.0
    duration_range: Range = (10.0, 600.0)


@dataclass(frozen=True, slots=True)
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

    decay_mean: float = 0.0
    decay_spread: float = 0.0
    decay_time: float = 600.0
    workload_spread: float = 0.0
    workload_time: float = 300.0
    cpu_use_sigma: float = 0.0
    memory_use_sigma: float = 0.0
    interference_sigma: float = 0.0
    node_loss_time: float = 0.0
    node_return_time: float = 300.0
    eviction_delay: float = 40.0


@dataclass(frozen=True, slots=True)
class Measurement:
    """How late and how well a scheduler sees.

    Attributes:
        scrape_interval: seconds between measurements, uniform between the two, one draw for each cluster.
        use_noise: relative standard deviation of measured use.
        pressure_noise: standard deviation of measured CPU pressure.
        estimated_pressure_share: share of clusters without PSI, where pressure is estimated from use.
    """

    scrape_interval: Range = (15.0, 60.0)
    use_noise: float = 0.0
    pressure_noise: float = 0.0
    estimated_pressure_share: float = 0.0


@dataclass(frozen=True, slots=True)
class Reward:
    """Weights of the terms of a node's reward, all >= 0; see `training.simulator.reward`."""

    lateness_weight: float = 1.0
    violation_weight: float = 1.0
    balance_weight: float = 0.0
    spread_weight: float = 0.0


@dataclass(frozen=True, slots=True)
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
        pod_classes: workloads; empty for a trace.
    """

    name: str
    version: int
    description: str
    nodes: int
    load: Range
    episode_arrivals: int
    warmup_arrivals: int
    node_classes: tuple[NodeClass, ...]
    pod_classes: tuple[PodClass, ...]
    arrivals: Arrivals = field(default_factory=Arrivals)
    hidden: Hidden = field(default_factory=Hidden)
    measurement: Measurement = field(default_factory=Measurement)
    reward: Reward = field(default_factory=Reward)

    def __post_init__(self) -> None:
        _require(self.nodes >= 1, "nodes", self.nodes, "at least 1")
        _require(0.0 < self.load[0] <= self.load[1], "load", self.load, "[low, high] with 0 < low <= high")
        _require(self.episode_arrivals >= 1, "episode_arrivals", self.episode_arrivals, "at least 1")
        _require(
            0 <= self.warmup_arrivals < self.episode_arrivals,
            "warmup_arrivals",
            self.warmup_arrivals,
            "at least 0 and below episode_arrivals",
        )
        _require(bool(self.node_classes), "node_classes", self.node_classes, "at least one class")
        _require(bool(self.pod_classes), "pod_classes", self.pod_classes, "at least one class")
        self._check_processes()
        low, high = self.measurement.scrape_interval
        _require(0.0 < low <= high, "measurement.scrape_interval", (low, high), "[low, high] with 0 < low <= high")
        for node in self.node_classes:
            sound = node.cores > 0 and node.memory > 0 and node.speed > 0 and node.weight >= 0
            _require(sound, f"node_classes.{node.name}", node, "positive cores, memory and speed, weight >= 0")
        for pod in self.pod_classes:
            best_effort = pod.slack == (0.0, 0.0)
            _require(
                best_effort or 1.0 <= pod.slack[0] <= pod.slack[1],
                f"pod_classes.{pod.name}.slack",
                pod.slack,
                "[low, high] with 1 <= low <= high, or [0, 0] for best effort",
            )
            sound = 0 < pod.cpu[0] <= pod.cpu[1] and 0 < pod.memory[0] <= pod.memory[1] and pod.duration > 0
            _require(sound and pod.lifetime >= 1.0, f"pod_classes.{pod.name}", pod, "positive sizes, lifetime >= 1")

    def _check_processes(self) -> None:
        """Refuse rates, times and weights that mean nothing."""
        _require(0.0 <= self.arrivals.wave < 1.0, "arrivals.wave", self.arrivals.wave, "a number in [0, 1)")
        low, high = self.arrivals.duration_range
        _require(0.0 < low <= high, "arrivals.duration_range", (low, high), "[low, high] with 0 < low <= high")
        share = self.measurement.estimated_pressure_share
        _require(0.0 <= share <= 1.0, "measurement.estimated_pressure_share", share, "a number in [0, 1]")
        positive = {
            "arrivals": ("day", "burst_rate", "burst_time", "calm_time", "longest_gap", "duration_scale"),
            "hidden": ("decay_time", "workload_time", "node_return_time"),
        }
        not_negative = {
            "hidden": (
                "decay_spread",
                "workload_spread",
                "cpu_use_sigma",
                "memory_use_sigma",
                "interference_sigma",
                "node_loss_time",
                "eviction_delay",
            ),
            "measurement": ("use_noise", "pressure_noise"),
            "reward": ("lateness_weight", "violation_weight", "balance_weight", "spread_weight"),
        }
        for section, names in positive.items():
            for name in names:
                value = getattr(getattr(self, section), name)
                _require(value > 0.0, f"{section}.{name}", value, "a positive number")
        for section, names in not_negative.items():
            for name in names:
                value = getattr(getattr(self, section), name)
                _require(value >= 0.0, f"{section}.{name}", value, "a number that is not negative")

    def resized(self, nodes: int) -> Scenario:
        """The scenario with another number of nodes, over the same time.

        Arrivals are as many times more frequent as there are nodes, so an episode and its warm-up need as many more.
        """
        return replace(
            self,
            nodes=nodes,
            episode_arrivals=max(2, self.episode_arrivals * nodes // self.nodes),
            warmup_arrivals=self.warmup_arrivals * nodes // self.nodes,
        )


def _require(sound: bool, name: str, value: object, wanted: str) -> None:
    if not sound:
        raise InvalidInputError(f"scenario field {name} is {value}; give {wanted}")


FOLDER: Final = resources.files("training.simulator") / "scenarios"


def scenario_names() -> tuple[str, ...]:
    """Names that `load_scenario` knows."""
    return tuple(sorted(Path(item.name).stem for item in FOLDER.iterdir() if item.name.endswith(".yaml")))


def load_scenario(name: str) -> Scenario:
    """The scenario of that name, or in the file of that path when the name ends in `.yaml`.

    Raises:
        InvalidInputError: there is none, or the file does not describe one; the message names the field.
    """
    try:
        if name.endswith(".yaml"):
            text = Path(name).read_text(encoding="utf-8")
        else:
            text = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidInputError(
            f"scenario {name!r} cannot be read ({error.strerror}); "
            f"choose one of {list(scenario_names())} or give the path of a .yaml file"
        ) from error
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InvalidInputError(f"scenario {name!r} is not YAML ({error})") from error
    return _build(Scenario, document, "")


T = TypeVar("T")


def _build(kind: type[T], document: Any, path: str) -> T:
    """An instance of dataclass `kind` from a mapping, checked field by field; `path` names it in errors."""
    if not isinstance(document, dict):
        raise InvalidInputError(f"scenario field {path or 'document'} is {document!r}; give a mapping")
    known = {item.name: item for item in fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(document) - set(known))
    if unknown:
        raise InvalidInputError(f"scenario field {path}{unknown[0]} is unknown; choose among {sorted(known)}")
    hints = get_type_hints(kind)
    values = {}
    for name, item in known.items():
        if name in document:
            values[name] = _value(hints[name], document[name], f"{path}{name}")
        elif item.default is MISSING and item.default_factory is MISSING:
            raise InvalidInputError(f"scenario field {path}{name} is missing; add it")
    return kind(**values)


def _value(hint: Any, raw: Any, path: str) -> Any:
    """`raw` as a value of the type `hint`."""
    if is_dataclass(hint):
        return _build(hint, raw, f"{path}.")  # type: ignore[arg-type]
    origin = get_origin(hint)
    if origin is Literal:
        if raw not in get_args(hint):
            raise InvalidInputError(f"scenario field {path} is {raw!r}; choose one of {list(get_args(hint))}")
        return raw
    if origin is tuple:
        if not isinstance(raw, list):
            raise InvalidInputError(f"scenario field {path} is {raw!r}; give a list")
        kinds = get_args(hint)
        if kinds[-1] is Ellipsis:
            return tuple(_value(kinds[0], item, f"{path}[{number}]") for number, item in enumerate(raw))
        if len(raw) != len(kinds):
            raise InvalidInputError(f"scenario field {path} has {len(raw)} items; give {len(kinds)}")
        return tuple(_value(kind, item, path) for kind, item in zip(kinds, raw, strict=True))
    number = isinstance(raw, (int, float)) and not isinstance(raw, bool)
    if hint is float and number:
        return float(raw)
    if hint in (int, str) and isinstance(raw, hint) and not isinstance(raw, bool):
        return raw
    raise InvalidInputError(f"scenario field {path} is {raw!r}; give a value of type {getattr(hint, '__name__', hint)}")
