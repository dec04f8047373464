"""Every setting of a training run: meaning, unit, default; frozen, typed, validated once. Runs nothing."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from policy.errors import InvalidInputError
from policy.features import FEATURE_NAMES, HIGH, LOW
from policy.priorities import TEMPERATURE
from training.files import Section, read_yaml, validated
from training.simulator.conditions import Condition
from training.simulator.draws import SELECTION_SEEDS
from training.simulator.knowledge import LABELLED, knowledge
from training.simulator.scenarios import NodeClass

MOST_EPISODES: Final = 10_000
"""Episodes a selection suite may have."""

PROXIMAL: Final = ("mappo", "ippo")
"""Algorithms of BenchMARL, which `maddpg-train ppo` trains."""

_SPEED: Final = FEATURE_NAMES.index("node_speed")

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
NotNegative = Annotated[float, Field(ge=0.0)]
Step = Annotated[float, Field(gt=0.0, le=1.0)]
Bid = Annotated[float, Field(gt=-1.0, lt=1.0)]
Count = Annotated[int, Field(ge=1)]
Matmul = Literal["float32", "bfloat16", "auto"]


def _known(name: str) -> str:
    try:
        knowledge(name)
    except InvalidInputError as error:
        raise ValueError(str(error)) from error
    return name


ToldName = Annotated[str, AfterValidator(_known)]


class ArenaConfig(Section):
    """Clusters of one size that are trained on together."""

    scenario: str  # name of a scenario or variant of `training.simulator`
    nodes: Count | None = None  # nodes per cluster; None keeps the scenario's
    # machines that the clusters' nodes are drawn from; none keeps the scenario's
    node_classes: tuple[NodeClass, ...] = ()
    clusters: Count = 32  # how many are simulated at once
    # what the policy is told, names of `training.simulator.knowledge`; clusters take them by turns
    told: Annotated[tuple[ToldName, ...], Field(min_length=1)] = (LABELLED,)
    share: Positive = 1.0  # how often its transitions are drawn, relative to the other arenas
    replay: Annotated[int, Field(ge=64)] = 200_000  # transitions kept
    batch: Count = 384  # transitions per update
    warmup: Count = 4000  # transitions collected before its first update
    steps_per_update: Count = 1  # steps of all its clusters from one update to the next


class LoadConfig(Section):
    """Offered load of an episode, a share of the cluster's speed-weighted CPU capacity; uniform draw per cluster."""

    low: Positive = 0.25
    high: Positive = 0.55

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low {self.low} exceeds high {self.high}; swap them")
        return self


class ActorConfig(Section):
    """The actors: what bids for the nodes."""

    # ``shared`` (one network for every node), ``per_class`` (one for each class of node speed) or ``monotone`` (one
    # that never prefers, all else equal, the more used, more pressed, fuller or slower node; see
    # `training.learning.monotone`). A node's class follows from its own observation, so each serves any number of
    # nodes from one ONNX graph.
    kind: Literal["shared", "per_class", "monotone"] = "shared"
    # boundaries between the classes of ``per_class``, ascending values of the feature `node_speed` (speed per core
    # relative to the reference core, minus 1); a node at a boundary belongs to the faster class
    speed_classes: tuple[float, ...] = ()
    # the four measures that are bid on: ``classic`` or ``physical``, see `policy.criteria`
    criteria_set: Literal["classic", "physical"] = "classic"
    # placement, and selection too, keep to the bound of `policy.shortage`, as serving always does
    memory_bound: bool = False
    # ``all``, or ``constant``: the bid on the constant criterion alone, which then is the preference, all others
    # being zero in training and serving. A plain bid, with no known rule to lean on.
    criteria: Literal["all", "constant"] = "all"
    # the features of an observation that the bids follow from; the criteria read the node's state themselves
    features: Annotated[tuple[str, ...], Field(min_length=1)] = FEATURE_NAMES
    # widths of the hidden layers of each network
    hidden: Annotated[tuple[Count, ...], Field(min_length=1)] = (256, 256)
    # bids on the four of ``criteria_set``, in order, before training; the rule it starts from. ``criteria: constant``
    # reads the last alone; ``kind: monotone`` needs all four above 0.
    initial_bids: tuple[Bid, Bid, Bid, Bid] = (0.0, 0.0, 0.8, 0.0)

    @model_validator(mode="after")
    def _classes(self) -> Self:
        low, high = float(LOW[_SPEED]), float(HIGH[_SPEED])
        if self.kind != "per_class" and self.speed_classes:
            raise ValueError("speed_classes are read by kind per_class alone; choose it or leave them out")
        if self.kind == "per_class" and not self.speed_classes:
            raise ValueError("kind per_class needs speed_classes, such as [-0.15, 0.1]")
        if self.kind == "monotone":
            if self.criteria_set != "physical" or self.criteria != "all":
                raise ValueError(
                    "kind monotone needs criteria_set physical and criteria all: the classic criteria are not"
                )
            if min(self.initial_bids) <= 0.0:
                raise ValueError(f"kind monotone bids in (0, 1), and initial_bids are {list(self.initial_bids)}")
        unknown = [name for name in self.features if name not in FEATURE_NAMES]
        if unknown:
            raise ValueError(f"features holds {unknown}; choose among {', '.join(FEATURE_NAMES)}")
        if any(not low < boundary < high for boundary in self.speed_classes):
            raise ValueError(f"speed_classes {list(self.speed_classes)} reach beyond node_speed's {low:g} to {high:g}")
        if any(left >= right for left, right in pairwise(self.speed_classes)):
            raise ValueError(f"speed_classes {list(self.speed_classes)} do not ascend; sort them, each once")
        return self


class CriticConfig(Section):
    """The centralised critic."""

    # ``set`` (placement-aware, any number of nodes) or ``joint`` (all observations and bids, fixed number)
    kind: Literal["set", "joint"] = "set"
    hidden: Annotated[tuple[Count, ...], Field(min_length=2)] = (256, 256)  # widths of its hidden layers
    twin: bool = True  # two of them, the smaller team value in the target


class OptimiserConfig(Section):
    """Adam's learning rates, how they end, and the arithmetic of an update."""

    # precision in which the hidden layers multiply during updates; ``bfloat16`` takes about half the time on a CPU
    # with AMX or AVX512-BF16 and longer on others, and ``auto`` measures when the run begins and keeps what is faster.
    # Only float32 gives the same run on every CPU. Placement, selection and export are always float32.
    matmul: Matmul = "float32"
    actor_rate: Positive = 3e-4  # at the start
    critic_rate: Positive = 1e-3  # at the start
    # updates before which the actor keeps its initial rule: what critics say before they know anything unlearns it
    actor_after: Annotated[int, Field(ge=0)] = 0
    final_share: Share = 0.05  # of either rate left at the last update; the decay is linear in updates
    actor_clip: Positive = 0.5  # largest gradient norm of the actor
    critic_clip: Positive = 1.0  # largest gradient norm of the critics


class ObjectiveConfig(Section):
    """What is maximised."""

    # gamma per arrival in a cluster of `reference_nodes`. Arrivals are N / reference_nodes times as frequent in a
    # cluster of N nodes at equal load, so gamma ** (reference_nodes / N) discounts time alike in every size.
    discount: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.99
    # see `discount`; the size at which `discount`, `n_step` and the two weights below are quoted
    reference_nodes: Count = 10
    # steps of reward summed before the critic bootstraps, in a cluster of `reference_nodes`; N / reference_nodes
    # times as many in a cluster of N nodes. Without `shaping` few steps teach the critic little: a pod's lateness
    # comes as long after its placement as the pod runs, and nothing observed in between tells whose it is.
    n_step: Count = 1
    soft_update: Step = 0.01  # share of the way targets move to the trained networks at each update
    # the same for the averaged actor, which is what is selected and exported; 1 keeps no average
    average_update: Step = 0.005
    per_node: bool = True  # each node's Q follows its own reward (set critic); otherwise their sum follows the team's
    # adds gamma x potential after - potential before to each node's reward, the potential being what its running
    # pods will still be charged if their present rate lasts (Ng, Harada and Russell, ICML 1999). What is best stays
    # best; what a placement costs is seen at once rather than when the pod is late.
    shaping: bool = True
    # overrides the scenarios' price of squared CPU use, a convex shaper; None keeps theirs
    balance_weight: NotNegative | None = None
    # the same for the price of load variance; moves a policy along the trade-off of SLA violations and equal use
    spread_weight: NotNegative | None = None
    # on the entropy (nats) of the placement softmax; keeps the policy from growing sure of itself
    entropy_bonus: NotNegative = 0.01
    # on the preference that random nodes gain by being more used, more pressed, fuller or slower, all else equal; for
    # actors that are not ``monotone``; see `training.learning.monotone.gain_where_worse`
    worse_penalty: NotNegative = 0.0
    squash_penalty: NotNegative = 1e-3  # on the mean squared actor output before tanh; keeps tanh out of saturation


class ExplorationConfig(Section):
    """How training strays from its policy."""

    temperature: Positive = TEMPERATURE  # of the placement softmax; served priorities use the same
    uniform_share: Share = 0.1  # share of placements drawn uniformly over feasible nodes
    # on the bids: ``ou`` (Ornstein-Uhlenbeck), ``gaussian`` or ``none``
    noise: Literal["ou", "gaussian", "none"] = "ou"
    theta: Share = 0.15  # pull of the OU process to zero, per step
    sigma_start: NotNegative = 0.3  # noise scale at the first update
    sigma_end: NotNegative = 0.05  # noise scale at the last update; linear in between


class ReplayConfig(Section):
    """How transitions are drawn from the replays of all arenas."""

    # ``uniform``, or ``prioritised`` by temporal-difference error (Schaul et al., arXiv:1511.05952)
    kind: Literal["uniform", "prioritised"] = "uniform"
    # how much the error counts: a transition is drawn in proportion to priority ** alpha; 0 is uniform
    alpha: Share = 0.6
    # share of the bias that importance weights correct at the first update; rises linearly to all of it at the last
    beta_start: Share = 0.4
    smallest: Positive = 1e-3  # added to every error, so that nothing is never drawn again; in units of the reward


class Matd3Config(Section):
    """What MATD3 adds; read by ``algorithm: matd3`` alone."""

    actor_every: Count = 2  # critic updates per actor and target update
    smoothing_sigma: NotNegative = 0.1  # noise on the target actor's bids
    smoothing_clip: NotNegative = 0.2  # largest absolute value of that noise


class PpoConfig(Section):
    """What MAPPO and IPPO add; read by those two alone."""

    steps: Count = 75  # decisions of every cluster from one collection to the next
    epochs: Count = 4  # times that each transition of a collection is learned from
    minibatch: Count = 1200  # transitions per update; divides a collection
    clip: Positive = 0.2  # largest change of a bid's probability ratio that is rewarded
    gae: Share = 0.95  # lambda of the generalised advantage estimate


class SuiteConfig(Section):
    """One set of selection episodes: one per seed."""

    scenario: str  # name of a versioned scenario
    nodes: Count | None = None  # nodes per cluster; None keeps the scenario's
    load: Positive = 0.4  # offered load
    clusters: Annotated[int, Field(ge=1, le=MOST_EPISODES)] = 32  # episodes
    told: ToldName = LABELLED  # what the policy is told

    @property
    def condition(self) -> Condition:
        """As the selection plays it."""
        return Condition(self.scenario, self.load, self.nodes, self.clusters, self.told)


class SelectionConfig(Section):
    """How the best checkpoint is chosen: argmax placement on episodes that neither training nor the tests meet."""

    every_updates: Count = 250
    # of the first selection episode; in `training.simulator.draws.SELECTION_SEEDS`, apart from the test seeds
    seed: Annotated[int, Field(ge=SELECTION_SEEDS.start, lt=SELECTION_SEEDS.stop - MOST_EPISODES)] = 900_000
    # shares of the way from the initial weights to the trained ones, measured besides after the last update: weights
    # in between keep most of what the initial rule knew (Wortsman et al., WiSE-FT, arXiv:2109.01903). Weights that are
    # monotone stay so.
    blend: tuple[Annotated[float, Field(gt=0.0, lt=1.0)], ...] = ()
    # the score is the mean over them of SLA violations over those of the untrained rule (`expected-speed`)
    suites: tuple[SuiteConfig, ...] = ()


class TrainingConfig(Section):
    """One training run."""

    # of the policy, as bundles, metrics and decisions show it
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,62}$")] = "maddpg"
    # ``mappo`` and ``ippo`` are a comparison: `maddpg-train ppo` trains them, and nothing else does
    algorithm: Literal["maddpg", "matd3", "mappo", "ippo"] = "maddpg"
    seed: Annotated[int, Field(ge=0)] = 1  # every random stream of the run derives from it
    updates: Count = 5000  # gradient updates of a whole run; rates and noise are scheduled over it
    checkpoint_episodes: Count = 100  # episodes between checkpoints
    arenas: Annotated[tuple[ArenaConfig, ...], Field(min_length=1)]
    load: LoadConfig = LoadConfig()
    actor: ActorConfig = ActorConfig()
    critic: CriticConfig = CriticConfig()
    optimiser: OptimiserConfig = OptimiserConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    exploration: ExplorationConfig = ExplorationConfig()
    replay: ReplayConfig = ReplayConfig()
    matd3: Matd3Config = Matd3Config()
    ppo: PpoConfig = PpoConfig()
    selection: SelectionConfig = SelectionConfig()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.critic.kind == "joint" and len({arena.nodes for arena in self.arenas}) > 1:
            raise ValueError("critic.kind joint needs the same arenas.nodes everywhere; use set or one size")
        if self.algorithm == "matd3" and not self.critic.twin:
            raise ValueError("algorithm matd3 needs critic.twin: true")
        if self.algorithm in PROXIMAL:
            if len(self.arenas) > 1:
                raise ValueError(f"algorithm {self.algorithm} trains in one arena; leave the others out")
            if self.actor.kind != "shared" or self.actor.criteria != "all":
                raise ValueError(f"algorithm {self.algorithm} needs actor.kind shared and actor.criteria all")
        return self


def load_config(path: Path) -> TrainingConfig:
    """Read a YAML configuration.

    Raises:
        InvalidInputError: it does not read, parse or validate; the message names every offending field.
    """
    return parse_config(read_yaml(path, f"configuration {path}"), str(path))


def parse_config(document: object, source: str = "configuration") -> TrainingConfig:
    """Validate a parsed document; raises `InvalidInputError` as `load_config`."""
    return validated(TrainingConfig, document, source, "training/configs/default.yaml")
