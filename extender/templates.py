"""Templates of pods: pods of one template do the same kind of work. Pure.

A template is who makes the pods, and what they run: images, commands, arguments and requests of their containers. Jobs
of one CronJob, and Jobs and pods whose names differ only in a generated ending, share a template. Environment and
volumes are left out: where they decide how much work there is, the template has more noise, which is estimated.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final

import msgspec

from extender.errors import UNDECODABLE
from extender.pods import Pod

_GENERATED: Final = re.compile(
    r"[0-9]+"  # a CronJob's Jobs, a time, a counter
    r"|[bcdfghjklmnpqrstvwxz2456789]{5}"  # metadata.generateName (k8s.io/apimachinery/pkg/util/rand)
    r"|[bcdfghjklmnpqrstvwxz2456789]{8,10}"  # pod-template-hash
    r"|(?=[a-z]*[0-9])[a-z0-9]{8,}"  # any other random text
)
"""Parts that controllers and clients append to a name so that it stands once."""

_UUID: Final = re.compile(r"-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")

_KEY_BYTES: Final = 8


_encode: Final = msgspec.json.Encoder().encode


def without_ending(name: str) -> str:
    """Return a name without its generated ending."""
    name = _UUID.sub("", name)
    while True:
        head, _, part = name.rpartition("-")
        if not head or not _GENERATED.fullmatch(part):
            return name
        name = head


def template_of(pod: Pod) -> str:
    """Return the key of a pod's template, 16 hexadecimal digits; a pod's name counts where none owns it."""
    metadata, spec = pod.metadata, pod.spec
    owner = metadata.controller
    kind, name = (owner.kind, owner.name) if owner.kind else ("Pod", metadata.name)
    runs = [
        (_plain(it.image), _plain(it.command), _plain(it.args), None if it.resources is None else it.resources.requests)
        for it in (*(spec.init_containers or ()), *(spec.containers or ()))
    ]
    text = _encode((metadata.namespace, kind, without_ending(name), runs))
    return hashlib.blake2b(text, digest_size=_KEY_BYTES).hexdigest()


def _plain(raw: msgspec.Raw) -> object:
    """What was sent, without its spaces and escapes; None where nothing was, or nothing that can be read."""
    try:
        return msgspec.json.decode(raw) if raw else None
    except UNDECODABLE:
        return None
