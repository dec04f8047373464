"""Every setting of the service, with meaning, unit and default; where values come from, `extender.configuration` knows.

Settings are validated once, frozen, and passed explicitly; an unknown name is refused wherever it stands. The module is
long because it is a list: one entry per setting, which docs/operations.md and the chart's schema are generated from.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationInfo, field_validator, model_validator

from extender.urls import secret_problem
from policy import heuristics
from policy.urgency import BY_OWNER_KIND, BY_QOS

QOS_CLASSES: Final = tuple(BY_QOS)
_MATCHER: Final = r"""[a-zA-Z_][a-zA-Z0-9_]*\s*(=|!=|=~|!~)\s*("([^"\\\n]|\\.)*"|'([^'\\\n]|\\.)*')\s*"""
_MATCHERS: Final = rf"\s*{_MATCHER}(,\s*{_MATCHER})*,?\s*"
SELECTOR_PATTERN: Final = rf"^(|{_MATCHERS}|\s*\{{{_MATCHERS}\}}\s*)$"
"""Matchers of PromQL, such as ``cluster="ours", region=~"eu-.*"``; braces around them may be left out."""

URL_SETTINGS: Final = {
    "prometheus_url": "prometheus_username and prometheus_password_file, or by prometheus_headers_file",
    "tracing_endpoint": "OTEL_EXPORTER_OTLP_HEADERS",
}
"""Settings that somebody may write a password into, and where it belongs: what stands in them is never shown."""

SECRETIVE: Final = frozenset({*URL_SETTINGS, "prometheus_username"})
"""Settings whose refused values are not shown: a user with a colon has the password behind it."""

Urgency = Annotated[float, Field(ge=0.0, le=1.0)]
Speed = Annotated[float, Field(gt=0.0, le=100.0)]


_LABEL: Final = r"[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
HOST_NAME: Final = re.compile(rf"(?=.*[a-zA-Z]){_LABEL}(\.{_LABEL})*")
"""A name that stands for addresses, such as ``localhost``; what is digits and dots alone is an address or a mistake."""


def separated(hosts: str) -> list[str]:
    """Addresses or names of a list; IPv6 addresses may stand in brackets, as in a URL."""
    return [host.strip().removeprefix("[").removesuffix("]") for host in hosts.split(",")]


def setting(default: Any, meaning: str, unit: str = "", **limits: Any) -> Any:
    """One setting: its default, what it means, and its unit ("" where it has none)."""
    return Field(default=default, description=meaning, json_schema_extra={"unit": unit}, **limits)


class Settings(BaseModel):
    """The settings of one service; see each field's description."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, hide_input_in_errors=True)

    _origins: dict[str, str] = PrivateAttr(default_factory=dict)
    """Where the values come from, by name; `extender.configuration` fills it."""

    # where it listens
    host: str = setting(
        "127.0.0.1,::1",
        "addresses that the scheduling verbs listen on, separated by commas; where the machine has no IPv4 or no IPv6, "
        "the addresses of that family are skipped",
    )
    operations_host: str = setting(
        "0.0.0.0,::",
        "addresses that `operations_port` listens on, in the same form",
    )
    port: int = setting(8888, "port of the scheduling verbs; 0 takes a free one", ge=0, le=65535)
    operations_port: int | None = setting(
        None, "port of health, metrics and decisions; empty: the same as `port`; 0 takes a free one", ge=0, le=65535
    )
    peers: str | None = setting(
        None,
        "names or addresses of all replicas of this service, separated by commas, such as a headless Service; each is "
        "asked at `operations_port` for decisions that this one does not remember; empty: none is asked",
    )
    keep_alive_s: float = setting(
        120.0,
        "how long an idle connection is kept; kube-scheduler's client keeps its own for 90 s, so stay above",
        "s",
        gt=90.0,
    )
    operations_keep_alive_s: float = setting(
        15.0, "the same at `operations_port`, where nothing is lost by a new connection", "s", ge=1.0, le=3600.0
    )
    shutdown_grace_s: float = setting(
        10.0, "how long answers in progress may take after a signal to stop", "s", gt=0.0, le=600.0
    )
    shutdown_delay_s: float = setting(
        0.0,
        "how long the service goes on after a signal to stop, with readiness false, until traffic has moved away",
        "s",
        ge=0.0,
        le=600.0,
    )
    max_body_bytes: int = setting(
        20 * 1024 * 1024,
        "larger request bodies are refused with 413; 5,000 nodes by name take 0.2 MB, 1,000 whole Node objects up to "
        "17 MB",
        "bytes",
        ge=1024,
    )
    max_bytes_in_flight: int = setting(
        64 * 1024 * 1024,
        "bytes that all callers together may have under way: bodies that arrive or are answered, and answers that "
        "nobody reads; beyond it whoever stalls longest, else the newest, is refused with 503 and Retry-After",
        "bytes",
        ge=1024,
    )
    body_timeout_s: float = setting(
        10.0, "a request body that takes longer to arrive is refused with 408", "s", gt=0.0, le=600.0
    )
    answer_timeout_s: float = setting(
        10.0, "when an answer is not read for this long, its connection is closed", "s", gt=0.0, le=600.0
    )
    header_timeout_s: float = setting(
        10.0,
        "a TLS handshake, or the head of a request, that takes longer is refused with 408 and its connection closed",
        "s",
        gt=0.0,
        le=600.0,
    )
    max_header_bytes: int = setting(
        16 * 1024,
        "longer heads of requests are refused with 431; each field counts 32 bytes more than its text",
        "bytes",
        ge=1024,
    )
    max_connections: int = setting(
        1000,
        "beyond this many connections at one port, the one that has been idle longest is closed; if none is idle, "
        "the new one is refused with 503 and Retry-After",
        ge=1,
    )
    max_requests_in_flight: int = setting(
        256, "requests beyond this many at once, at each port, are refused with 503 and Retry-After", ge=1
    )

    # who may call
    tls_cert_file: Path | None = setting(
        None,
        "certificate (PEM, then its issuers') with which the verbs are served over TLS; read again when it changes; "
        "empty: plain HTTP",
    )
    tls_key_file: Path | None = setting(None, "its private key (PEM, not encrypted)")
    tls_client_ca_file: Path | None = setting(
        None,
        "authorities (PEM) of client certificates: callers without a certificate of theirs are refused at the "
        "handshake; empty: any caller is let in",
    )
    tls_client_names: tuple[str, ...] = setting(
        (),
        "common names or alternative names that a client certificate must have one of, else 403; empty: any name",
    )
    tls_minimum_version: Literal["1.2", "1.3"] = setting("1.2", "least version of TLS that is spoken")
    tls_reload_interval_s: float = setting(
        2.0, "how often these files are looked at for a change", "s", gt=0.0, le=3600.0
    )
    operations_tls: bool = setting(
        False,
        "serve `operations_port` over TLS too, with the same certificate",
    )
    operations_client_ca_file: Path | None = setting(
        None,
        "authorities (PEM) of those who may read metrics, decisions and the dashboard at `operations_port`: a client "
        "certificate of theirs is demanded for all but probes; empty: none is asked for there",
    )
    operations_client_names: tuple[str, ...] = setting(
        (),
        "common names or alternative names that such a certificate must have one of, else 403; empty: any name. "
        "Other replicas, whose certificate has a name of this one's, are let in too",
    )
    operations_bearer: bool = setting(
        False,
        "let those read decisions and the dashboard who show a bearer token that the API server accepts (TokenReview) "
        "and whom `operations_users` names; probes stay open, and metrics without `operations_client_ca_file`",
    )
    operations_users: tuple[str, ...] = setting(
        (),
        "users and groups whose tokens are let in, such as `system:serviceaccount:monitoring:reader`; "
        "`system:authenticated` is everybody with a token, so every pod",
    )
    operations_user_header: str | None = setting(
        None,
        "header in which the proxies in `operations_proxies` name the user whom they authenticated, such as "
        "`X-Forwarded-User`; they must take it out of what callers send",
    )
    operations_proxies: tuple[str, ...] = setting(
        (), "addresses or networks (CIDR) of these proxies; the header counts from nowhere else"
    )

    # which verbs it answers
    enable_filter: bool = setting(True, "answer `/filter`; every node passes, so it only records what was feasible")
    enable_prioritize: bool = setting(True, "answer `/prioritize`")
    enable_preempt: bool = setting(True, "answer `/preempt`; every proposed victim is kept")
    enable_bind: bool = setting(False, "answer `/bind`: the service then binds pods itself and needs the right to")

    # how it decides
    scorer: str = setting("policy", "what decides: `policy` (the bundle) or the name of a heuristic")
    bundle_path: Path | None = setting(None, "folder of the policy bundle; empty: the one that ships")
    policy_required: bool = setting(
        True,
        "refuse to start without a valid bundle; false: start on the fallback (`missing`), and take up the policy once "
        "the bundle is there",
    )
    bundle_reload_s: float = setting(
        5.0,
        "how often the bundle's folder is looked at for another policy, which then serves without a restart; 0: only "
        "on SIGHUP",
        "s",
        ge=0.0,
        le=3600.0,
    )
    inference_threads: int = setting(1, "ONNX Runtime threads for one inference", "threads", ge=1, le=64)
    deadline_ms: float = setting(
        50.0,
        "when the scorer has not answered by then, the fallback does; keep it well below the httpTimeout of the "
        "KubeSchedulerConfiguration, because kube-scheduler waits and every other pod with it",
        "ms",
        gt=0.0,
        le=60_000.0,
    )
    fallback: str = setting("kube-default", "heuristic that answers when the scorer is late, missing or failing")
    kubernetes_version: Literal["1.34", "1.35", "1.36", "1.37"] = setting(
        heuristics.NEWEST_KUBERNETES,
        "minor version of the kube-scheduler that asks: the heuristic `kube-default` gives its default scores (1.36 "
        "changed them), and pods that are resized in place count as it counts them",
    )
    range_tolerance: float | None = setting(
        0.1,
        "how far a node's features may lie beyond what the policy was trained on before that node is judged apart from "
        "the others, as a share of each feature's range; empty: any distance",
        "share",
        ge=0.0,
    )
    breaker_failures: int = setting(
        5, "failures or late answers in a row after which the scorer is left alone", "calls", ge=1, le=1000
    )
    breaker_cooling_s: float = setting(
        10.0, "how long it is left alone, until one call tries it again", "s", gt=0.0, le=3600.0
    )
    demand_classes: int = setting(256, "demands whose preferences are kept for reuse", "classes", ge=1, le=100_000)
    max_nodes: int = setting(
        20_000,
        "a request that names more nodes is not scored: each gets the neutral priority; more than 100,000 are refused "
        "with 413",
        "nodes",
        ge=1,
        le=100_000,
    )
    unknown_node_priority: int = setting(
        5, "neutral priority, given to nodes that the watch has not shown", "0..10", ge=0, le=10
    )
    answer_every_node: bool = setting(
        True,
        "name every node in the answer to `/prioritize`; false: leave out nodes of priority 0, which kube-scheduler "
        "reads sooner, and from 1.35 on no longer draws among if in-tree scores lift several of them to the top",
    )
    assumed_time_limit_s: float = setting(
        30.0, "how long a placement is believed that the watch does not confirm", "s", gt=0.0, le=3600.0
    )
    urgency_by_priority_class: dict[str, Urgency] = setting(
        {}, "urgency of pods by the name of their PriorityClass, where no annotation says it", "0..1"
    )
    urgency_inferred: bool = setting(
        True,
        "infer the urgency of pods that neither an annotation nor `urgency_by_priority_class` names: from their "
        "deadline or their CronJob's period and what former runs took, from the value of their PriorityClass, from "
        "their owner; false: the QoS class decides",
    )
    urgency_by_owner_kind: dict[str, Urgency] = setting(
        dict(BY_OWNER_KIND),
        "urgency by the kind of the controller that owns the pod, where nothing before says it; `CronJob` for pods of "
        "its Jobs, `Serving` for pods of a ReplicaSet or StatefulSet with a readiness probe; a kind that is left out "
        "says nothing",
        "0..1",
    )
    urgency_by_qos: dict[str, Urgency] = setting(
        dict(BY_QOS),
        "urgency of all other pods, by QoS class; urgency is one over the slowdown that a pod can bear",
        "0..1",
    )
    ledger_size: int = setting(10_000, "decisions remembered for `/v1/decisions`", "decisions", ge=1, le=1_000_000)
    ledger_memory_mib: int = setting(
        64,
        "memory for all nodes of the latest decisions, about 7 bytes per node and decision; older decisions know the "
        "best five nodes alone",
        "MiB",
        ge=1,
        le=65_536,
    )
    ledger_path: Path | None = setting(
        None,
        "file (SQLite) that keeps decisions and their outcomes over restarts, one service a file; empty: memory alone",
    )
    ledger_rows: int = setting(
        100_000, "decisions kept in that file, about 2 KB each; the oldest go first", "decisions", ge=1, le=100_000_000
    )
    ledger_days: float = setting(30.0, "how long a decision is kept in that file", "days", gt=0.0, le=3650.0)
    random_seed: int | None = setting(None, "seed of the draw among nodes of equal preference; empty: from the system")

    explain_on_pod: Literal["none", "event", "annotation"] = setting(
        "none",
        "say on each pod that was decided upon, once it is bound, why it went there: as an `event` (this needs "
        "the right to create them) or as an `annotation` (this needs the right to patch pods)",
    )
    explain_on_pod_rate: float = setting(
        10.0, "most of these a second; up to 1000 wait, and more are dropped", "1/s", gt=0.0, le=1000.0
    )

    # what is tried beside it
    shadow: str | None = setting(
        None,
        "candidate (a heuristic's name or the folder of a policy bundle) that scores the same requests off their path "
        "and decides nothing; how far it agrees is at `/v1/shadow`; empty: none",
        min_length=1,
    )
    experiment: str | None = setting(
        None,
        "candidate (a heuristic's name or the folder of a policy bundle) that decides for a share of the workloads; "
        "what comes of it is at `/v1/experiment`; empty: none",
        min_length=1,
    )
    experiment_share: float = setting(
        0.1,
        "share of the workloads that the candidate decides for; a workload is the controller that owns its pods, else "
        "the pod",
        "0..1",
        ge=0.0,
        le=1.0,
    )
    experiment_salt: str = setting("", "another text chooses other workloads for the candidate")

    # what it knows of the cluster
    kubeconfig: Path | None = setting(
        None,
        "kubeconfig file; empty: the files of the variable `KUBECONFIG`, else the pod's ServiceAccount, else "
        "`~/.kube/config`",
    )
    kube_context: str | None = setting(None, "context of the kubeconfig; empty: its current one")
    list_page_size: int = setting(500, "objects asked for in one page of a list", "objects", ge=1, le=10_000)
    usage_source: Literal["auto", "metrics-server", "kubelet", "prometheus", "none"] = setting(
        "auto",
        "where measured use comes from: `kubelet`, each node's own, which knows pressure (PSI) from Kubernetes 1.34 on "
        "and the CPU time of pods; `metrics-server`; `auto`: kubelets, and metrics-server for the nodes whose kubelet "
        "does not answer; `prometheus`, which knows CPU pressure (PSI) too where it scrapes node-exporter; `none`: "
        "expected from requests alone",
    )
    prometheus_url: str | None = setting(
        None,
        "base URL of Prometheus, without user and password; needed, and read, where `usage_source` is `prometheus`",
        pattern="^https?://",
    )
    prometheus_selector: str = setting(
        "",
        'matchers that narrow node-exporter\'s series, such as `cluster="ours"` where several clusters share a store',
        pattern=SELECTOR_PATTERN,
    )
    prometheus_node_label: str = setting(
        "node",
        "label of node-exporter's series whose value, a port cut off, is the node's name",
        pattern=r"^[a-zA-Z_][a-zA-Z0-9_]*$",
    )
    prometheus_window_s: float = setting(
        120.0, "interval that rates are taken over; at least two scrapes must lie in it", "s", ge=1.0, le=3600.0
    )
    prometheus_ca_file: Path | None = setting(
        None, "certificates that Prometheus' own is checked against; empty: the system's"
    )
    prometheus_token_file: Path | None = setting(
        None, "file with the bearer token for Prometheus, read for each question; empty: none is sent"
    )
    prometheus_username: str | None = setting(
        None, "user for Prometheus (basic authentication); empty: none", pattern="^[^:]+$"
    )
    prometheus_password_file: Path | None = setting(
        None, "file with that user's password, read for each question; needed with `prometheus_username`"
    )
    prometheus_headers_file: Path | None = setting(
        None,
        "file with headers for Prometheus, `Name: value` on each line, read for each question: `X-Scope-OrgID` for a "
        "store with tenants; empty: none",
    )
    kubelet_connections: int = setting(
        32,
        "kubelets that are asked at once",
        ge=1,
        le=1024,
    )
    kubelet_kept_connections: int = setting(
        1024,
        "connections to kubelets that are kept for the next question, at most, and at most a quarter of the files that "
        "the process may open; each takes about 36 KiB, and saves a TLS handshake per question; 0: none",
        ge=0,
        le=65536,
    )
    kubelet_ca_file: Path | None = setting(
        None, "authorities (PEM) that kubelets' certificates are checked against; empty: those of the API server"
    )
    kubelet_insecure_skip_tls_verify: bool = setting(
        False,
        "believe any certificate of a kubelet, as metrics-server's `--kubelet-insecure-tls`: whoever answers at a "
        "node's address then gets the service's token",
    )
    cluster_time_limit_s: float = setting(
        300.0,
        "when what is known of nodes or pods is older, because the API server cannot be watched, the fallback decides "
        "until it is current again",
        "s",
        gt=0.0,
    )
    usage_interval_s: float = setting(15.0, "how often measured use is asked for", "s", gt=0.0, le=3600.0)
    usage_time_limit_s: float = setting(
        180.0,
        "measurements older than this are dropped, and use is expected from requests; the fallback decides while the "
        "newest of all is older",
        "s",
        gt=0.0,
    )
    node_speed_key: str = setting(
        "maddpg-scheduler.io/speed", "label or annotation that gives a node's speed per core (1 = reference core)"
    )
    node_speed_by_instance_type: dict[str, Speed] = setting(
        {}, "speed per core by `node.kubernetes.io/instance-type`, for nodes without that label", "1 = reference core"
    )
    node_speed_learned: bool = setting(
        True,
        "learn the speed of nodes without that label, and without an entry for their instance type, from the CPU time "
        "that completed pods of one template took on different nodes; needs kubelets, by `usage_source`",
    )
    node_speed_benchmark: str | None = setting(
        None,
        "DaemonSet whose pods run `maddpg-extender benchmark`, as `NAMESPACE/NAME`; what they measure is the speed of "
        "their nodes, unless an operator gives it; empty: none",
        pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?/[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$",
    )
    node_speed_published: bool = setting(
        True,
        "nodes whose speed nothing else gives have the CoreMark per vCPU that their provider (GKE, AKS) published for "
        "their instance type; 1 is a vCPU of n2-standard-8",
    )

    scheduler_name: str = setting(
        "maddpg-scheduler",
        "`spec.schedulerName` of the pods that count as waiting for this service: the profile that calls it",
        min_length=1,
    )

    observe: bool = setting(
        False,
        "decide nothing, and say of each pod that any other scheduler places where it would have gone; the verbs are "
        "not served",
    )

    # how it reports
    log_level: Literal["debug", "info", "warning", "error"] = setting("info", "least severe events that are logged")
    log_format: Literal["json", "console"] = setting("json", "form of the log on stderr")
    tracing_endpoint: str | None = setting(
        None,
        "URL of an OpenTelemetry collector that takes OTLP over HTTP, such as http://collector:4318/v1/traces; empty: "
        "no tracing",
        pattern="^https?://",
    )
    tracing_sample_share: float = setting(
        0.01,
        "share of requests that are traced; one whose caller sends a trace context follows the caller's choice",
        "0..1",
        ge=0.0,
        le=1.0,
    )
    node_metrics: int = setting(
        0, "nodes that get metrics of their own, those with the least room first", "nodes", ge=0, le=1000
    )
    housekeeping_interval_s: float = setting(
        1.0,
        "how often old assumptions and measurements are dropped and the age of what is known is judged",
        "s",
        gt=0.0,
        le=60.0,
    )

    @field_validator("scorer")
    @classmethod
    def _known_scorer(cls, value: str) -> str:
        if value != "policy":
            heuristics.by_name(value)
        return value

    @field_validator("fallback")
    @classmethod
    def _known_fallback(cls, value: str) -> str:
        return heuristics.by_name(value).name

    @field_validator("urgency_by_qos")
    @classmethod
    def _every_qos_class(cls, value: dict[str, float]) -> dict[str, float]:
        if set(value) != set(QOS_CLASSES):
            raise ValueError(f"give exactly the classes {', '.join(QOS_CLASSES)}; found {', '.join(sorted(value))}")
        return value

    @field_validator("tls_minimum_version", "kubernetes_version", mode="before")
    @classmethod
    def _version_as_text(cls, value: object) -> object:
        return str(value) if isinstance(value, float) else value  # YAML reads 1.2 as a number

    def came_from(self, origins: Mapping[str, str]) -> None:
        """Note where the values come from, by name."""
        self._origins.update(origins)

    def origin_of(self, name: str) -> str:
        """Return where a value comes from: `flag`, `environment`, a file, `program` or `default`."""
        return self._origins.get(name, "program" if name in self.model_fields_set else "default")

    @field_validator("host", "operations_host", "peers")
    @classmethod
    def _addresses(cls, value: str | None) -> str | None:
        for host in () if value is None else separated(value):
            try:
                ipaddress.ip_address(host)
            except ValueError:
                if not HOST_NAME.fullmatch(host):
                    raise ValueError(
                        f"{host!r} is no address; give IPv4 or IPv6 addresses or names, separated by commas, no ports"
                    ) from None
        return value

    @model_validator(mode="after")
    def _operations_have_a_port(self) -> Settings:
        if "operations_host" in self.model_fields_set and self.operations_port is None:
            raise ValueError("operations_host needs operations_port; on one port, `host` holds for all")
        return self

    @model_validator(mode="after")
    def _peers_have_a_port(self) -> Settings:
        if self.peers is not None and not self.operations_port:
            raise ValueError("peers needs operations_port, and no free one (0): all replicas answer at the same port")
        return self

    @model_validator(mode="after")
    def _a_body_fits(self) -> Settings:
        if self.max_body_bytes > self.max_bytes_in_flight:
            raise ValueError(
                f"max_body_bytes is {self.max_body_bytes} and max_bytes_in_flight {self.max_bytes_in_flight}; one body "
                "must fit: raise max_bytes_in_flight"
            )
        return self

    @model_validator(mode="after")
    def _tls_is_whole(self) -> Settings:
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise ValueError("tls_cert_file and tls_key_file belong together: set both, or neither for plain HTTP")
        for name in ("tls_client_ca_file", "operations_tls"):
            if getattr(self, name) and self.tls_cert_file is None:
                raise ValueError(f"{name} needs tls_cert_file and tls_key_file: without them nothing is encrypted")
        if self.tls_client_names and self.tls_client_ca_file is None:
            raise ValueError(
                "tls_client_names needs tls_client_ca_file: a name counts only if an authority vouches for it"
            )
        if self.operations_tls and self.operations_port is None:
            raise ValueError(
                "operations_tls needs operations_port; on one port, the settings of the verbs hold for all"
            )
        if self.operations_client_ca_file is not None and not self.operations_tls:
            raise ValueError("operations_client_ca_file needs operations_tls: certificates are shown over TLS alone")
        if self.operations_client_names and self.operations_client_ca_file is None:
            raise ValueError(
                "operations_client_names needs operations_client_ca_file: a name counts only if an authority vouches "
                "for it"
            )
        return self

    @model_validator(mode="after")
    def _readers_are_known(self) -> Settings:
        for address in self.operations_proxies:
            try:
                ipaddress.ip_network(address)
            except ValueError:
                raise ValueError(
                    f"operations_proxies has {address[:60]!a}, which is no address or network; give one as in "
                    "10.0.0.7 or 10.0.0.0/24"
                ) from None
        if bool(self.operations_proxies) != bool(self.operations_user_header):
            raise ValueError("operations_user_header and operations_proxies belong together: set both, or neither")
        if self.operations_bearer != bool(self.operations_users):
            raise ValueError(
                "operations_bearer and operations_users belong together: every pod has a token, so name who may read"
            )
        encrypted = self.tls_cert_file is not None if self.operations_port is None else self.operations_tls
        if self.operations_bearer and not encrypted:
            raise ValueError(
                "operations_bearer needs operations_tls (on one port: tls_cert_file): tokens must not cross the "
                "network in the clear"
            )
        known = self.operations_bearer or self.operations_client_ca_file is not None
        if self.peers is not None and self.operations_proxies and not known:
            raise ValueError(
                "peers needs operations_bearer or operations_client_ca_file where operations_proxies is set: replicas "
                "ask each other with a token or a certificate"
            )
        return self

    @field_validator("prometheus_url", "tracing_endpoint", mode="before")
    @classmethod
    def _url_without_secrets(cls, value: object, info: ValidationInfo) -> object:
        problem = secret_problem(value, URL_SETTINGS[info.field_name or ""]) if isinstance(value, str) else None
        if problem is not None:
            raise ValueError(problem)
        return value

    @model_validator(mode="after")
    def _prometheus_is_asked_by_one(self) -> Settings:
        if (self.prometheus_username is None) != (self.prometheus_password_file is None):
            raise ValueError("prometheus_username and prometheus_password_file belong together: set both, or neither")
        if self.prometheus_username is not None and self.prometheus_token_file is not None:
            raise ValueError("prometheus_username and prometheus_token_file exclude each other: set one of them")
        return self

    @property
    def asks_kubelets(self) -> bool:
        """Whether use is measured by kubelets."""
        return self.usage_source in ("auto", "kubelet")

    @property
    def asks_metrics_server(self) -> bool:
        """Whether use is measured by metrics-server, of some nodes or of all."""
        return self.usage_source in ("auto", "metrics-server")

    @model_validator(mode="after")
    def _kubelets_are_verified_or_not(self) -> Settings:
        if self.kubelet_insecure_skip_tls_verify and self.kubelet_ca_file is not None:
            raise ValueError(
                "kubelet_ca_file and kubelet_insecure_skip_tls_verify exclude each other: without verification no "
                "authority counts"
            )
        return self

    @model_validator(mode="after")
    def _prometheus_has_a_url(self) -> Settings:
        if self.usage_source == "prometheus" and self.prometheus_url is None:
            raise ValueError(
                "usage_source is prometheus, so prometheus_url is needed: http://prometheus.monitoring:9090"
            )
        return self

    @model_validator(mode="after")
    def _usage_outlives_its_interval(self) -> Settings:
        if self.usage_time_limit_s < 2 * self.usage_interval_s:
            raise ValueError("usage_time_limit_s must be at least twice usage_interval_s, or every measurement expires")
        return self
