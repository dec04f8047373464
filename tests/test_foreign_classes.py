"""Members of foreign classes that we override exist there, so that a release which renames one cannot go unseen."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator

import extender
import policy
import training

OVERRIDDEN = {
    "extender.dashboard.rendering._Environment": {"getattr"},
    "extender.logs._Handler": {"handleError"},
    "extender.mappings.Loader": {"construct_mapping"},
    "extender.operations.tracing.TracedConnection": {"on_message_complete"},
    "extender.operations.families.PartCollector": {"collect"},
    "extender.operations.metrics._Part": {"collect"},
    "extender.operations.tracing._CountingExporter": {"export", "shutdown"},
    "extender.server._Server": {"capture_signals", "startup"},
    "extender.transport.connection.VerbConnection": {
        "data_received",
        "on_body",
        "on_headers_complete",
        "on_message_begin",
        "on_message_complete",
        "on_response_complete",
        "timeout_keep_alive_handler",
    },
    "extender.transport.framing.FramedConnection": {
        "eof_received",
        "on_header",
        "on_headers_complete",
        "on_message_begin",
        "on_message_complete",
        "on_url",
    },
    "extender.transport.handshake.Handshake": {"connection_lost", "connection_made"},
    "extender.transport.limits.LimitedConnection": {
        "_start_asgi_task",
        "connection_lost",
        "connection_made",
        "data_received",
        "on_body",
        "on_headers_complete",
        "on_response_complete",
        "pause_writing",
        "resume_writing",
        "timeout_keep_alive_handler",
    },
    "training.environment.ClusterEnv": {"metadata", "reset", "step"},
    "training.environment.NodesEnv": {"action_space", "observation_space", "render", "reset", "step"},
    "training.learning.critics.Critics": {"forward"},
    "training.learning.critics.JointCritic": {"forward"},
    "training.learning.critics.SetCritic": {"forward"},
    "training.learning.monotone.MonotoneActor": {"forward"},
    "training.learning.monotone.PositiveLinear": {"forward"},
    "training.learning.networks.Actor": {"forward"},
    "training.learning.networks.ClassActors": {"forward"},
}
"""By class: what its foreign bases are expected to have."""

DECLARATIVE = ("msgspec", "pydantic")
"""Their metaclasses refuse a field that hides a member, and fill classes with members of their own."""

GENERATED = {"_abc_impl", "_is_protocol"}
"""What the standard library adds to classes."""

NOT_INSTALLED = "training.ppo."
"""Needs BenchMARL, which `requirements/test.txt` leaves out; its own tests run where that is installed."""

PLAIN = ("abc", "builtins", "collections", "enum", "typing")


def foreign_bases(each: type) -> list[type]:
    roots = {package.__name__ for package in (extender, policy, training)}
    return [base for base in each.__mro__[1:] if base.__module__.partition(".")[0] not in {*roots, *PLAIN}]


def classes() -> Iterator[type]:
    """Every class of the product that has a foreign base whose members it may override."""
    for package in (extender, policy, training):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if found.name.endswith("__main__") or found.name.startswith(NOT_INSTALLED):
                continue
            for _, each in inspect.getmembers(importlib.import_module(found.name), inspect.isclass):
                bases = foreign_bases(each) if each.__module__ == found.name else []
                if bases and not any(base.__module__.startswith(DECLARATIVE) for base in bases):
                    yield each


def overridden(each: type) -> set[str]:
    members = {name for name in vars(each) if not name.startswith("__")} - GENERATED
    return {name for name in members if any(name in vars(base) for base in foreign_bases(each))}


def test_what_we_override_is_still_there() -> None:
    found = {f"{each.__module__}.{each.__qualname__}": members for each in classes() if (members := overridden(each))}
    assert found == OVERRIDDEN
