"""What the service finds on its own machine: the policy, candidates, certificates, addresses and the ledger's file."""

from __future__ import annotations

import datetime as dt
import errno
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from extender.errors import CertificateError, SettingsError
from extender.inspection.finding import Finding
from extender.scorer.load import load_candidate, load_scorer, warm
from extender.settings import Settings
from extender.transport.addresses import listen, shown
from extender.transport.tls import Certificates
from policy.errors import SchedulerError

SQLITE_HEADER = b"SQLite format 3\0"

READ_WITH: Final[Sequence[tuple[str, Callable[[Settings], bool], str]]] = (
    ("bundle_", lambda it: it.scorer == "policy", "scorer: policy"),
    ("experiment_", lambda it: it.experiment is not None, "experiment"),
    ("explain_on_pod_rate", lambda it: it.explain_on_pod != "none", "explain_on_pod"),
    ("kubelet_", lambda it: it.asks_kubelets, "usage_source: kubelet or auto"),
    ("ledger_days", lambda it: it.ledger_path is not None, "ledger_path"),
    ("ledger_rows", lambda it: it.ledger_path is not None, "ledger_path"),
    ("prometheus_", lambda it: it.usage_source == "prometheus", "usage_source: prometheus"),
    ("tracing_sample_share", lambda it: it.tracing_endpoint is not None, "tracing_endpoint"),
)
"""Beginnings of settings that are read only with others: whether these are as they must be, and what they must be."""


def inspect(settings: Settings) -> Iterator[Finding]:
    """Try everything that needs no network."""
    yield from _unread(settings)
    yield _scorer(settings)
    for name in ("shadow", "experiment"):
        candidate = getattr(settings, name)
        if candidate is not None:
            yield _candidate(name, candidate, settings)
    if settings.tls_cert_file is not None:
        yield _certificates(settings)
    yield from _addresses(settings)
    if settings.ledger_path is not None:
        yield _ledger(settings.ledger_path)


def _unread(settings: Settings) -> Iterator[Finding]:
    """Settings that somebody gave and nothing reads."""
    for name in sorted(settings.model_fields_set):
        for beginning, is_read, needed in READ_WITH:
            if name.startswith(beginning) and getattr(settings, name) is not None and not is_read(settings):
                yield Finding(name, "warning", f"nothing reads it without {needed}", f"set {needed}, or leave it out")


def _scorer(settings: Settings) -> Finding:
    name = "policy bundle" if settings.scorer == "policy" else "scorer"
    try:
        loaded = load_scorer(settings)
        warm(loaded.scorer)
    except SchedulerError as error:
        if settings.policy_required:
            return Finding(name, "failed", str(error))
        return Finding(name, "warning", str(error), "until then the fallback answers (policy_required: false)")
    return Finding(name, "ok", f"{loaded.scorer.name}, temperature {loaded.temperature:g}: accepted")


def _candidate(setting: str, name: str, settings: Settings) -> Finding:
    try:
        loaded = load_candidate(name, settings.inference_threads, settings.kubernetes_version)
        warm(loaded.scorer)
    except SchedulerError as error:
        return Finding(setting, "failed", str(error))
    return Finding(setting, "ok", f"{loaded.scorer.name}: accepted")


def _certificates(settings: Settings) -> Finding:
    try:
        certificates = Certificates(settings)
    except CertificateError as error:
        return Finding("certificates", "failed", str(error))
    ends = dt.datetime.fromtimestamp(certificates.identity.validity["certificate"].end, dt.UTC)
    told = f"accepted, valid until {ends:%Y-%m-%d %H:%M} UTC"
    expiring = certificates.expiring()
    if expiring:
        return Finding("certificates", "warning", f"{', '.join(sorted(expiring))}: {told}", "renew it soon")
    return Finding("certificates", "ok", told)


def _addresses(settings: Settings) -> Iterator[Finding]:
    """Whether the ports can be listened at, all at once; one that is taken may be taken by a service that runs."""
    with ExitStack() as opened:
        yield from _listened_at(settings, opened)


def _listened_at(settings: Settings, opened: ExitStack) -> Iterator[Finding]:
    ours: set[int] = set()
    ports = [("host", settings.host, "port", settings.port)]
    if settings.operations_port is not None:
        ports.append(("operations_host", settings.operations_host, "operations_port", settings.operations_port))
    for host_setting, hosts, port_setting, port in ports:
        name = f"{host_setting}, {port_setting}"
        try:
            sockets = listen(host_setting, hosts, port)
        except SettingsError as error:
            if port in ours:
                yield Finding(name, "failed", f"port {port} is that of the verbs too", f"give {port_setting} another")
            elif isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EADDRINUSE:
                told = f"{hosts} port {port} is taken, perhaps by this service"
                yield Finding(name, "warning", told, f"stop what listens there, or set {port_setting}")
            else:
                yield Finding(name, "failed", str(error))
        else:
            yield Finding(name, "ok", f"{', '.join(shown(sockets))} can be listened at")
            ours.update(opened.enter_context(each).getsockname()[1] for each in sockets)


def _ledger(path: Path) -> Finding:
    """Whether the file may be written; it is not opened, because the service that runs holds it."""
    name = "ledger_path"
    folder = path.parent
    try:
        if not folder.is_dir():
            return Finding(name, "failed", f"there is no folder {folder}", "make it, or mount a volume there")
        if not os.access(folder, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
            return Finding(name, "failed", f"{path} may not be written", "give this user the right to, or another path")
        if path.exists():
            if not path.is_file():
                return Finding(name, "failed", f"{path} is no regular file", "give a file of its own")
            with path.open("rb") as file:
                beginning = file.read(len(SQLITE_HEADER))
            if beginning not in (b"", SQLITE_HEADER):
                return Finding(name, "failed", f"{path} is no SQLite database", "give a file of its own")
    except OSError as error:
        return Finding(name, "failed", f"{path} cannot be read ({error.strerror})", "give a file of its own")
    return Finding(name, "ok", f"{path} may be written")
