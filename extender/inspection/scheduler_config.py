"""Finds in a kube-scheduler's configuration what would keep it from asking this service, or make it ask wrongly.

Sources, of Kubernetes 1.34 to 1.37: pkg/scheduler/apis/config/validation/validation.go (validateExtenders),
pkg/scheduler/extender.go (makeTransport, Filter, IsInterested), staging/src/k8s.io/kube-scheduler/config/v1/types.go;
for Policy, config/v1/legacy_types.go of Kubernetes 1.22.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from extender.errors import SchedulerConfigError
from extender.inspection.finding import Finding, Verdict
from extender.inspection.scheduler_file import (
    CONFIGURATION,
    EXTENDER,
    POLICY,
    Entry,
    entries,
    is_of,
    milliseconds,
    names_in,
    read,
    split_url,
)
from extender.inspection.scheduler_limits import problems
from extender.proxies import is_loopback
from extender.settings import Settings
from policy.model import short

GROUP: Final = "kubescheduler.config.k8s.io"
VERBS: Final = {
    "filterVerb": "filter",
    "prioritizeVerb": "prioritize",
    "preemptVerb": "preempt",
    "bindVerb": "bind",
}
"""Field of the configuration -> our path, without its slash."""
RESOURCE_SCORES: Final = ("NodeResourcesFit", "NodeResourcesBalancedAllocation")
"""What the policy weighs itself."""
POLICY_SCORES: Final = (
    "LeastRequestedPriority", "BalancedResourceAllocation", "MostRequestedPriority", "RequestedToCapacityRatioPriority"
)  # fmt: skip
"""The same, as a Policy calls it."""
LARGEST_WEIGHT: Final = (2**63 - 1) // 1000
"""A weight times 10 is added to in-tree scores ten times over (prioritizeNodes), in an int64 that wraps around."""
TYPES: Final = {str: "a text", bool: "true or false", int: "a whole number", list: "a list", dict: "a map"}


def inspect(file: Path, settings: Settings) -> Iterator[Finding]:
    """Say what is wrong with a configuration for a service with these settings; one `ok` where nothing is."""
    try:
        document = read(file)
    except SchedulerConfigError as error:
        yield Finding(str(file), "failed", str(error), "give the file of kube-scheduler's --config")
        return
    found = list(_Configuration(file.name, document, settings).findings())
    if not found:
        found = [Finding(str(file), "ok", "kube-scheduler would ask this service, as it expects to be asked")]
    yield from found


class _Configuration:
    """One configuration and the settings of the service that it should call."""

    def __init__(self, file: str, document: dict[str, Any], settings: Settings) -> None:
        self._file = file
        self._document = document
        self._settings = settings
        self._policy = document.get("kind") == "Policy"
        if self._policy:
            self._document = _as_spelt(self._document, POLICY)
            listed = self._document.get("extenders")
            if isinstance(listed, list):
                self._document["extenders"] = [
                    _as_spelt(each, EXTENDER) if isinstance(each, dict) else each for each in listed
                ]

    def findings(self) -> Iterator[Finding]:
        yield from self._version()
        yield from self._misformed("", self._document, POLICY if self._policy else CONFIGURATION)
        if not self._policy:
            for field, told, fix in problems(self._document):
                yield self._finding(field, "failed", told, fix)
        extenders = list(entries("extenders", self._document.get("extenders")))
        if not extenders:
            yield self._finding("extenders", "failed", "there is none", "add this service: docs/install.md")
        binders = [each.name for each in extenders if each.get("bindVerb", str)]
        if len(binders) > 1:
            told = f"{' and '.join(binders)} bind pods, and kube-scheduler lets one"
            yield self._finding("extenders[].bindVerb", "failed", told, "leave bindVerb out of all but one")
        ours = [each for each in extenders if self._calls_us(each)] or (extenders if len(extenders) == 1 else [])
        if extenders and not ours:
            told = f"none calls port {self._settings.port}, where this service answers"
            yield self._finding("extenders[].urlPrefix", "failed", told, "add this service, or set port")
        if len(ours) > 1:
            told = f"{' and '.join(each.name for each in ours)} call one port: its priorities count twice"
            yield self._finding("extenders", "warning", told, "leave one of them out")
        for entry in ours:
            yield from self._address(entry)
            yield from self._verbs(entry)
            yield from self._tls(entry)
            yield from self._weighing(entry)
        if ours:
            yield from self._profiles()
        yield from self._lease()

    def _finding(self, field: str, verdict: Verdict, told: str, fix: str = "") -> Finding:
        return Finding(f"{self._file}: {field}" if field else self._file, verdict, told, fix)

    def _version(self) -> Iterator[Finding]:
        version = self._document.get("apiVersion")
        if self._policy:
            told = "Policy is gone since Kubernetes 1.23: kube-scheduler does not read it"
            yield self._finding("kind", "failed", told, f"write a KubeSchedulerConfiguration of {GROUP}/v1")
        elif version != f"{GROUP}/v1":
            told = f"is {short(version):.60}, which kube-scheduler 1.34 and newer does not read"
            yield self._finding("apiVersion", "failed", told, f"write {GROUP}/v1")

    def _misformed(self, name: str, value: Any, form: Any) -> Iterator[Finding]:
        """Fields that kube-scheduler, which decodes strictly, does not know, or of another type than it takes."""
        kind = form if isinstance(form, type) else type(form)
        if value is None:
            return  # as if it was absent
        if not is_of(value, kind):
            told = f"is {short(value):.60}: kube-scheduler would not start"
            yield self._finding(name, "failed", told, f"give {TYPES[kind]}")
        elif kind is list:
            for number, each in enumerate(value):
                yield from self._misformed(f"{name}[{number}]", each, form[0])
        elif kind is dict:
            for field, held in value.items():
                where = f"{name}{'.' if name else ''}{str(field)[:60]}"
                if field in form:
                    yield from self._misformed(where, held, form[field])
                    continue
                near = next((each for each in form if each.lower() == str(field).lower()), None)
                fix = f"write {near}" if near else "remove it"
                yield self._finding(where, "failed", "is no field of it: kube-scheduler would not start", fix)

    def _calls_us(self, entry: Entry) -> bool:
        """Whether it calls the port of the verbs."""
        parts = split_url(entry.get("urlPrefix", str, ""))
        return parts is not None and parts[2] == self._settings.port

    def _address(self, entry: Entry) -> Iterator[Finding]:
        """Whether a call reaches this service."""
        field, prefix = f"{entry.name}.urlPrefix", entry.get("urlPrefix", str, "")
        parts = split_url(prefix)
        if parts is None:
            yield self._finding(field, "failed", "is no URL of HTTP or HTTPS", "give http://host:port")
            return
        scheme, host, port, path = parts
        encrypted = self._settings.tls_cert_file is not None
        if path.strip("/"):
            yield self._finding(
                field, "failed", f"leads to {path[:60]!a}, and the verbs are at the root", "leave the path out"
            )
        if self._settings.port and port != self._settings.port:
            verdict: Verdict = "failed" if is_loopback(host) else "warning"
            told = f"calls port {port}, and this service answers at {self._settings.port}"
            yield self._finding(field, verdict, told, "give its port, unless a Service stands in between")
        if not is_loopback(host) and all(is_loopback(each.strip()) for each in self._settings.host.split(",")):
            told = f"calls {host}, and this service answers on loopback alone (host: {self._settings.host})"
            yield self._finding(field, "failed", told, "set host to an address that it can reach")
        if (scheme == "https") != encrypted:
            here = "answers TLS alone" if encrypted else "answers plain HTTP, without tls_cert_file"
            fix = "write https" if encrypted else "write http, or set tls_cert_file and tls_key_file"
            yield self._finding(field, "failed", f"is {scheme}, and this service {here}", fix)

    def _verbs(self, entry: Entry) -> Iterator[Finding]:
        """Whether what is called is answered."""
        for field, verb in VERBS.items():
            called = entry.get(field, str, "")
            enabled = getattr(self._settings, f"enable_{verb}")
            name = f"{entry.name}.{field}"
            if called and called != verb:
                yield self._finding(name, "failed", f"is {called[:60]!a}, which is answered 404", f"write {verb}")
            elif called and not enabled:
                fix = f"leave it out, or set enable_{verb}: true"
                yield self._finding(name, "failed", f"this service does not answer it (enable_{verb}: false)", fix)
        if not entry.get("prioritizeVerb", str):
            told = "is empty: the policy is never asked"
            yield self._finding(f"{entry.name}.prioritizeVerb", "failed", told, "write prioritize")
        if self._settings.enable_bind and not entry.get("bindVerb", str):
            told = "is empty, and this service may bind (enable_bind: true): nobody asks it to"
            yield self._finding(f"{entry.name}.bindVerb", "warning", told, "write bind, or set enable_bind: false")

    def _tls(self, entry: Entry) -> Iterator[Finding]:
        """Whether the call is as safe as it looks."""
        parts = split_url(entry.get("urlPrefix", str, ""))
        tls = Entry(f"{entry.name}.tlsConfig", entry.get("tlsConfig", dict, {}))
        enabled = entry.get("enableHTTPS", bool, False)
        if parts is None or (parts[0] == "http" and not enabled):
            return
        if parts[0] == "http":
            told = "is true, and urlPrefix is http: nothing is encrypted"
            yield self._finding(f"{entry.name}.enableHTTPS", "failed", told, "write https in urlPrefix")
        authority = any(tls.fields.get(field) for field in ("caFile", "caData"))
        if tls.get("insecure", bool):
            told = "is true: kube-scheduler accepts any certificate, and sends pods to whoever answers"
            yield self._finding(f"{tls.name}.insecure", "failed", told, "remove it, and give caFile")
        elif not authority and enabled:
            told = "is missing: kube-scheduler then accepts any certificate, without a word"
            yield self._finding(
                f"{tls.name}.caFile", "failed", told, "give the authority of this service's certificate"
            )
        elif not authority:
            told = "is missing: kube-scheduler then trusts the authorities of its machine alone"
            yield self._finding(f"{tls.name}.caFile", "warning", told, "give the authority, and enableHTTPS: true")
        certificate = any(tls.fields.get(field) for field in ("certFile", "certData"))
        key = any(tls.fields.get(field) for field in ("keyFile", "keyData"))
        if self._settings.tls_client_ca_file is not None and not (certificate and key):
            told = "is missing, and this service asks for a client's certificate (tls_client_ca_file)"
            yield self._finding(f"{tls.name}.certFile", "failed", told, "give certFile and keyFile")

    def _weighing(self, entry: Entry) -> Iterator[Finding]:
        """Weight, waiting, and who is left out."""
        weight = 0 if entry.fields.get("weight") is None else entry.get("weight", int, 1)
        if not 0 < weight <= LARGEST_WEIGHT:
            told = (
                f"is {entry.fields.get('weight', 'missing')}: kube-scheduler would not start, or the policy not count"
            )
            yield self._finding(f"{entry.name}.weight", "failed", told, "give a positive number, such as 10")
        deadline = self._settings.deadline_ms
        timeout = milliseconds(entry.fields.get("httpTimeout"), nanoseconds=self._policy)
        if timeout is None:
            told = f"is {short(entry.fields['httpTimeout']):.40}, which is no duration"
            yield self._finding(f"{entry.name}.httpTimeout", "failed", told, "give one, such as 1s")
        elif timeout <= deadline:
            told = (
                f"is {timeout:g} ms, and this service may take {deadline:g} ms until its fallback answers (deadline_ms)"
            )
            yield self._finding(
                f"{entry.name}.httpTimeout", "failed", told, "give more, such as 1s, or lower deadline_ms"
            )
        if not entry.get("nodeCacheCapable", bool, False):
            if entry.get("filterVerb", str):
                told = "is set without nodeCacheCapable: from 1.34 on in-tree scores then see every node empty"
                fix = "set nodeCacheCapable: true, or leave filterVerb out"
                yield self._finding(f"{entry.name}.filterVerb", "failed", told, fix)
            else:
                told = "is not true: whole Node objects are sent, 1.7 MB a pod for 1,000 nodes"
                yield self._finding(f"{entry.name}.nodeCacheCapable", "warning", told, "set it to true")
        if not entry.get("ignorable", bool, False):
            told = "is not true: no pod is placed while this service is away"
            yield self._finding(f"{entry.name}.ignorable", "warning", told, "set it to true, unless you want that")
        if entry.get("managedResources", list):
            told = "is set: only pods that request one of these resources are asked about"
            yield self._finding(f"{entry.name}.managedResources", "warning", told, "leave it out to be asked about all")

    def _profiles(self) -> Iterator[Finding]:
        """What each profile leaves on beside the policy; extenders are shared by all of them."""
        if self._policy:
            listed = self._document.get("priorities")
            names = POLICY_SCORES[:2] if listed is None else names_in(listed)
            on = [name for name in POLICY_SCORES if name in names]
            if on:
                yield self._finding("priorities", "warning", *_left_on(on))
            return
        wanted = self._settings.scheduler_name
        profiles = list(entries("profiles", self._document.get("profiles"))) or [Entry("profiles", {})]
        called = [str(each.get("schedulerName", str, "default-scheduler")) for each in profiles]
        if len(set(called)) < len(called):
            told = "is given twice: kube-scheduler would not start"
            yield self._finding("profiles[].schedulerName", "failed", told, "give each profile a name of its own")
        if wanted not in called:
            told = f"is {' and '.join(called)[:200]!a}, and pods of {wanted!a} are counted as waiting (scheduler_name)"
            yield self._finding("profiles[].schedulerName", "warning", told, "set scheduler_name to the profile's name")
        if "default-scheduler" in called and wanted != "default-scheduler":
            told = (
                "default-scheduler is among them, and all profiles share extenders: the extender's own pods wait for it"
            )
            yield self._finding("profiles", "warning", told, "run a kube-scheduler of its own, or keep ignorable: true")
        for profile in profiles:
            plugins = Entry("", profile.get("plugins", dict, {}))
            on = _enabled(plugins, RESOURCE_SCORES, "score")
            if on:
                yield self._finding(f"{profile.name}.plugins.score", "warning", *_left_on(on))
            if "NodeResourcesFit" not in _enabled(plugins, ("NodeResourcesFit",), "filter"):
                told = (
                    "NodeResourcesFit is off as a filter too: pods go where they do not fit, and the kubelet fails them"
                )
                fix = "disable it under plugins.score alone"
                yield self._finding(f"{profile.name}.plugins.multiPoint", "failed", told, fix)

    def _lease(self) -> Iterator[Finding]:
        """Whether a second kube-scheduler shares the lease of the first: then one of them does nothing."""
        election = Entry("leaderElection", self._document.get("leaderElection") or {}) if not self._policy else None
        if election is None or not isinstance(election.fields, dict) or not election.get("leaderElect", bool, True):
            return
        profiles = list(entries("profiles", self._document.get("profiles")))
        names = {each.get("schedulerName", str, "default-scheduler") for each in profiles}
        if (
            names
            and "default-scheduler" not in names
            and election.get("resourceName", str, "kube-scheduler") == "kube-scheduler"
            and election.get("resourceNamespace", str, "kube-system") == "kube-system"
        ):
            told = "is kube-scheduler, the lease of the cluster's own: only one of the two would ever lead"
            yield self._finding(
                "leaderElection.resourceName", "warning", told, "give another name, such as maddpg-scheduler"
            )


def _left_on(names: list[str]) -> tuple[str, str]:
    told = f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'} left on, and weigh requests against the policy"
    return told, "disable them as scores, or lower their weight"


def _as_spelt(fields: Mapping[Any, Any], known: Mapping[str, Any]) -> dict[Any, Any]:
    """A map with the fields of `known` spelt as there: a Policy was read without regard to capitals."""
    spelt = {field.lower(): field for field in known}
    return {spelt.get(str(field).lower(), field): value for field, value in fields.items()}


def _enabled(plugins: Entry, names: tuple[str, ...], point: str) -> list[str]:
    """Which of these default plugins are on at an extension point."""
    on = set(names)
    for where in ("multiPoint", point):
        chosen = plugins.get(where, dict, {})
        off = names_in(chosen.get("disabled"))
        on = (set() if "*" in off else on - off) | (names_in(chosen.get("enabled")) & set(names))
    return [name for name in names if name in on]
