"""A kube-scheduler's configuration as it stands in a file, and the forms of its fields.

Read are KubeSchedulerConfiguration of any version and the Policy of old, as YAML or JSON, and a ConfigMap that holds
either. Refuses to judge: see `extender.inspection.scheduler_config`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import yaml

from extender.errors import SchedulerConfigError
from extender.mappings import Loader
from extender.proxies import PORTS
from extender.quantities import duration
from policy.errors import InvalidInputError

LARGEST_FILE: Final = 4 * 1024 * 1024
KINDS: Final = ("KubeSchedulerConfiguration", "Policy")
_NAMES_A_KIND: Final = re.compile(rf"\bkind\W+({'|'.join(KINDS)})\b")
DEFAULT_TIMEOUT_MS: Final = 5000.0
"""pkg/scheduler/extender.go, DefaultExtenderTimeout."""

_NAMED: Final = [{"name": str, "weight": int}]
_POINTS: Final = (
    "preEnqueue", "queueSort", "preFilter", "filter", "postFilter", "preScore", "score", "reserve", "permit", "preBind",
    "bind", "postBind", "multiPoint", "placementGenerate", "placementScore", "podGroupPostFilter",
)  # fmt: skip
_TLS: Final = {"insecure": bool, "serverName": str} | dict.fromkeys(
    ("certFile", "keyFile", "caFile", "certData", "keyData", "caData"), str
)
EXTENDER: Final[Mapping[str, Any]] = {
    **dict.fromkeys(("urlPrefix", "filterVerb", "prioritizeVerb", "preemptVerb", "bindVerb"), str),
    **dict.fromkeys(("enableHTTPS", "nodeCacheCapable", "ignorable"), bool),
    "weight": int,
    "httpTimeout": object,
    "managedResources": [{"name": str, "ignoredByScheduler": bool}],
    "tlsConfig": _TLS,
}
CONFIGURATION: Final[Mapping[str, Any]] = {
    **dict.fromkeys(("apiVersion", "kind", "healthzBindAddress", "metricsBindAddress"), str),
    **dict.fromkeys(("enableProfiling", "enableContentionProfiling", "delayCacheUntilActive"), bool),
    **dict.fromkeys(
        ("parallelism", "percentageOfNodesToScore", "podInitialBackoffSeconds", "podMaxBackoffSeconds"), int
    ),
    "leaderElection": {
        "leaderElect": bool,
        **dict.fromkeys(("leaseDuration", "renewDeadline", "retryPeriod"), str),
        **dict.fromkeys(("resourceLock", "resourceName", "resourceNamespace"), str),
    },
    "clientConnection": {
        **dict.fromkeys(("kubeconfig", "acceptContentTypes", "contentType"), str),
        "qps": object,
        "burst": int,
    },
    "profiles": [
        {
            "schedulerName": str,
            "percentageOfNodesToScore": int,
            "plugins": {point: {"enabled": _NAMED, "disabled": _NAMED} for point in _POINTS},
            "pluginConfig": [{"name": str, "args": object}],
        }
    ],
    "extenders": [EXTENDER],
}
"""Every field of version v1, and what it holds: a type, a map of fields, or a list of what its one member says.

From staging/src/k8s.io/kube-scheduler/config/v1/types.go of Kubernetes 1.34 to 1.37."""
POLICY: Final = {
    **dict.fromkeys(("apiVersion", "kind"), str),
    **dict.fromkeys(("predicates", "priorities"), object),
    "extenders": [EXTENDER],
    "hardPodAffinitySymmetricWeight": int,
    "alwaysCheckAllPredicates": bool,
}
"""The same of a Policy: config/v1/legacy_types.go of Kubernetes 1.22."""


def read(file: Path) -> dict[str, Any]:
    """Return the one configuration in a file.

    Raises:
        SchedulerConfigError: it cannot be read, does not parse, or holds none or several.
    """
    try:
        with file.open("rb") as opened:
            content = opened.read(LARGEST_FILE + 1)
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        reason = (isinstance(error, OSError) and error.strerror) or type(error).__name__
        raise SchedulerConfigError(f"cannot be read ({reason})") from error
    if len(content) > LARGEST_FILE:
        raise SchedulerConfigError(f"has more than {LARGEST_FILE} bytes")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SchedulerConfigError(f"byte {error.start} is no UTF-8") from error
    found = _configurations(text)
    if len(found) != 1:
        raise SchedulerConfigError(f"holds {len(found)} documents of kind {' or '.join(KINDS)}, and should hold one")
    return found[0]


def _configurations(text: str, inside: bool = False) -> list[dict[str, Any]]:
    """Every configuration in a text, those in ConfigMaps included."""
    try:
        # PyYAML refuses the tabs that JSON may be indented with
        documents = list(yaml.load_all(text.replace("\t", " ") if text.lstrip().startswith("{") else text, Loader))
    except InvalidInputError as error:
        raise SchedulerConfigError(str(error)) from error
    except yaml.MarkedYAMLError as error:
        line = "" if error.problem_mark is None else f"line {error.problem_mark.line + 1}: "
        raise SchedulerConfigError(f"{line}does not parse ({error.problem})") from error
    except (yaml.YAMLError, ValueError, RecursionError, TypeError) as error:
        raise SchedulerConfigError(f"does not parse ({type(error).__name__})") from error
    found = []
    for document in documents:
        if not isinstance(document, dict):
            continue
        if document.get("kind") in KINDS:
            found.append(document)
        elif document.get("kind") == "ConfigMap" and not inside and isinstance(document.get("data"), dict):
            for held in document["data"].values():
                if isinstance(held, str) and _NAMES_A_KIND.search(held):
                    found += _configurations(held, inside=True)
    return found


@dataclass(frozen=True, slots=True)
class Entry:
    """A part of the configuration that is a map."""

    name: str  # where it stands, such as ``extenders[0]``
    fields: Mapping[str, Any]  # what it holds

    def get(self, field: str, kind: type, default: Any = None) -> Any:
        """A field; `default` where it is absent, null or of another type."""
        value = self.fields.get(field)
        return value if is_of(value, kind) else default


def is_of(value: Any, kind: type) -> bool:
    """Return whether a value is of a type; a boolean is no whole number."""
    return isinstance(value, kind) and not (kind is int and isinstance(value, bool))


def entries(field: str, value: Any) -> list[Entry]:
    """The members of a list of maps; one that is no map has a field without a name, which nothing knows."""
    listed = value if isinstance(value, list) else []
    return [
        Entry(f"{field}[{number}]", each if isinstance(each, dict) else {"": each})
        for number, each in enumerate(listed)
    ]


def names_in(value: Any) -> set[str]:
    """The names in a list of maps, such as a profile's disabled plugins."""
    listed = value if isinstance(value, list) else []
    return {each["name"] for each in listed if isinstance(each, dict) and isinstance(each.get("name"), str)}


def split_url(prefix: str) -> tuple[str, str, int, str] | None:
    """Scheme, host, port and path of a URL, what follows the path included; None where it is none."""
    try:
        parts = urlsplit(prefix)
        port = parts.port or PORTS.get(parts.scheme)
    except ValueError:
        return None
    if port is None or not parts.hostname:
        return None
    return parts.scheme, parts.hostname, port, parts._replace(scheme="", netloc="").geturl()


def milliseconds(value: Any, nanoseconds: bool) -> float | None:
    """Return a timeout in milliseconds; the default where it is absent or 0; None where it is none.

    Args:
        value: a duration as Go writes it, such as ``1m30s``.
        nanoseconds: whether it is a whole number of nanoseconds instead, as in a Policy.
    """
    if value is None:
        return DEFAULT_TIMEOUT_MS
    if nanoseconds and is_of(value, int):
        return value * 1e-6 or DEFAULT_TIMEOUT_MS
    try:
        return round(duration(str(value).strip()) * 1e3, 6) or DEFAULT_TIMEOUT_MS if isinstance(value, str) else None
    except InvalidInputError:
        return None
