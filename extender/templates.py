"""Templates of pods: pods of one template do the same kind of work. Pure.

A template is who makes the pods, and what they run: images, commands, arguments and requests of their containers. Jobs
of one CronJob, and Jobs and pods whose names differ only in a generated ending, share a template. Environment and
volumes are left out: where they decide how much work there is, the template has more noise, which is estimated.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Final

import msgspec

from extender.pods import Container

_GENERATED: Final = re.compile(
    r"[0-9]+"  # a CronJob's Jobs, a time, a counter
    r"|[bcdfghjklmnpqrstvwxz2456789]{5}"  # metadata.generateName (k8s.io/apimachinery/pkg/util/rand)
    r"|[bcdfghjklmnpqrstvwxz2456789]{8,10}"  # pod-template-hash
    r"|(?=[a-z]*[0-9])[a-z0-9]{8,}"  # any other random text
)
"""Parts that controllers and clients append to a name so that it stands once."""

_UUID: Final = re.compile(r"-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")

_KEY_BYTES: Final = 8


class TemplatedContainer(Container, frozen=True, rename="camel"):
    """`extender.pods.Container` and what it runs."""

    image: str = ""
    command: list[str] | None = None
    args: list[str] | None = None


class _Owner(msgspec.Struct, frozen=True):
    """One of `metadata.ownerReferences`."""

    kind: str = ""
    name: str = ""
    controller: bool | None = None


_OWNERS: Final = msgspec.json.Decoder(list[_Owner] | None)
_encode: Final = msgspec.json.Encoder().encode


def without_ending(name: str) -> str:
    """Return a name without its generated ending."""
    name = _UUID.sub("", name)
    while True:
        head, _, part = name.rpartition("-")
        if not head or not _GENERATED.fullmatch(part):
            return name
        name = head


def template_of(
    namespace: str,
    name: str,
    owners: bytes | msgspec.Raw,
    containers: Sequence[TemplatedContainer],
) -> str:
    """Return the key of a pod's template, 16 hexadecimal digits.

    Args:
        namespace: of the pod.
        name: of the pod; counts where no controller owns it.
        owners: `metadata.ownerReferences` as they came; empty: there are none.
        containers: init containers, then containers.
    """
    kind, owner = "Pod", name
    if owners:
        try:
            found = _OWNERS.decode(owners)
        except msgspec.DecodeError:  # whether the pod is valid is for others to say
            found = None
        kind, owner = next(((it.kind, it.name) for it in found or () if it.controller), (kind, owner))
    runs = [(it.image, it.command, it.args, it.resources and it.resources.requests) for it in containers]
    text = _encode((namespace, kind, without_ending(owner), runs))
    return hashlib.blake2b(text, digest_size=_KEY_BYTES).hexdigest()
