"""extender/v1 messages: bytes to typed requests, and answers to bytes. Pure; refuses to know HTTP or scheduling.

Decoding goes in two steps. The top level is split into raw values, so that whatever is not needed is skipped and never
becomes Python objects; then each needed value is decoded into a typed struct that names only the fields it reads. Keys
of extender/v1 carry no JSON tags: Go writes them capitalised and reads them in any case, and so does this module.

Answers are written by hand: integers are never null, and names of known nodes are encoded once (`HostEncoder`).

Source: k8s.io/kube-scheduler/extender/v1/types.go.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Final, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from extender import nulls
from extender.cluster.source import Binding
from extender.errors import UNDECODABLE, WireError, kind_of
from extender.pods import Pod
from policy.priorities import MAX_PRIORITY

T = TypeVar("T")

NULL: Final = b"null"
MOST_NAMES: Final = 100_000
"""Nodes in a request; a larger list is refused, for every one of them is answered."""

LARGEST: Final = 2**63 - 1
"""The largest int64: Go could not read a larger one from our answer."""


class _NodeMetadata(msgspec.Struct, frozen=True):
    name: str


class _Node(msgspec.Struct, frozen=True):
    metadata: _NodeMetadata


class _NodeList(msgspec.Struct, frozen=True):
    items: list[_Node] | None = None


class _PodIdentity(msgspec.Struct, frozen=True):
    class Metadata(msgspec.Struct, frozen=True):
        uid: str

    metadata: Metadata


class _OrdinaryArgs(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """ExtenderArgs as kube-scheduler writes them when nodeCacheCapable, up to `_LIST_FOLLOWS`."""

    pod: Pod = msgspec.field(name="Pod")


_LIST_FOLLOWS: Final = b',"Nodes":null,"NodeNames":'
"""What stands between the pod and the list of names, in the order and spelling of Go's encoder."""

_ORDINARY_ARGS: Final = msgspec.json.Decoder(_OrdinaryArgs)
_TOP: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_POD: Final = msgspec.json.Decoder(Pod)
_NAMES: Final = msgspec.json.Decoder(list[str] | None)
_NODES: Final = msgspec.json.Decoder(_NodeList | None)
_TEXT: Final = msgspec.json.Decoder(str)
_COUNT: Final = msgspec.json.Decoder(Annotated[int, msgspec.Meta(ge=0, le=LARGEST)] | None)
_BY_NODE: Final = msgspec.json.Decoder(dict[str, dict[str, msgspec.Raw] | None] | None)
_PODS: Final = msgspec.json.Decoder(list[_PodIdentity] | None)
_META_PODS: Final = msgspec.json.Decoder(list[dict[str, msgspec.Raw]] | None)


@dataclass(frozen=True, slots=True)
class SchedulingRequest:
    """ExtenderArgs: a pod and the nodes it may go to."""

    pod: Pod  # the fields that count
    names: list[str]  # names of the nodes, in order, duplicates included
    names_json: bytes  # `NodeNames` as sent; ``null`` unless nodeCacheCapable
    nodes_json: bytes  # `Nodes` as sent; ``null`` if nodeCacheCapable


@dataclass(frozen=True, slots=True)
class PreemptionRequest:
    """ExtenderPreemptionArgs: for each node, UIDs of the victims and how many disruption budgets they violate.

    `uid` is that of the pod that they would make room for.
    """

    victims: Mapping[str, tuple[Sequence[str], int]]
    uid: str = ""


def decode_scheduling(body: bytes, names_of: Callable[[bytes], list[str]] | None = None) -> SchedulingRequest:
    """Body of `/filter` or `/prioritize`.

    As kube-scheduler writes it, the list of names is its end, and is decoded apart. If what stands before the list is
    an object with a pod once it is closed, then the list belongs to that object and not to something within it.
    """
    at = body.find(_LIST_FOLLOWS)
    if at > 0 and body.endswith(b"]}"):
        text = body[at + len(_LIST_FOLLOWS) : -1]
        try:
            args = _ORDINARY_ARGS.decode(body[:at] + b"}")
            return SchedulingRequest(args.pod, (names_of or decode_names)(text), text, NULL)
        except (*UNDECODABLE, WireError):
            pass  # it is of another kind, or wrong: the careful way says where
    return decode_carefully(body)


def decode_carefully(body: bytes) -> SchedulingRequest:
    """`decode_scheduling` for whatever is not written as kube-scheduler writes it."""
    top = _top(body)
    pod = _decode(_POD, _required(top, "Pod"), "Pod")
    names_json, nodes_json = bytes(top.get("nodenames", NULL)), bytes(top.get("nodes", NULL))
    if names_json != NULL:
        names = decode_names(names_json)
    else:
        nodes = _decode(_NODES, nodes_json, "Nodes")
        names = [node.metadata.name for node in (nodes.items or ())] if nodes is not None else []
        if len(names) > MOST_NAMES:
            raise _too_many("Nodes.items")
    return SchedulingRequest(pod, names, names_json, nodes_json)


def decode_names(text: bytes) -> list[str]:
    """The value of `NodeNames`."""
    # a list of short names takes twenty times its bytes once it is decoded: count first where it could be too long
    if len(text) > MOST_NAMES and text.count(b",") >= MOST_NAMES:
        raise _too_many("NodeNames")
    return _decode(_NAMES, text, "NodeNames") or []


def decode_preemption(body: bytes) -> PreemptionRequest:
    """Body of `/preempt`; `NodeNameToMetaVictims` wins where it is given, as nodeCacheCapable sends it."""
    top = _top(body)
    uid = _decode(_POD, _required(top, "Pod"), "Pod").metadata.uid
    victims: dict[str, tuple[Sequence[str], int]] = {}
    meta = _decode(_BY_NODE, top.get("nodenametometavictims", NULL), "NodeNameToMetaVictims")
    if meta is not None:
        for node, raw in meta.items():
            path = f"NodeNameToMetaVictims[{node!r}]"
            fields = _folded(raw or {})
            pods = _decode(_META_PODS, fields.get("pods", NULL), f"{path}.Pods") or []
            uids = [
                _decode(_TEXT, _required(_folded(pod), "UID", f"{path}.Pods[].UID"), f"{path}.Pods[].UID")
                for pod in pods
            ]
            victims[node] = (uids, _violations(fields, path))
        return PreemptionRequest(victims, uid)
    whole = _decode(_BY_NODE, top.get("nodenametovictims", NULL), "NodeNameToVictims") or {}
    for node, raw in whole.items():
        path = f"NodeNameToVictims[{node!r}]"
        fields = _folded(raw or {})
        identities = _decode(_PODS, fields.get("pods", NULL), f"{path}.Pods") or []
        victims[node] = ([pod.metadata.uid for pod in identities], _violations(fields, path))
    return PreemptionRequest(victims, uid)


def decode_binding(body: bytes) -> Binding:
    """Body of `/bind`."""
    top = _top(body)
    values = {}
    for key in ("PodNamespace", "PodName", "PodUID", "Node"):
        values[key] = _decode(_TEXT, _required(top, key), key)
        if not values[key]:
            raise WireError(f"{key} is empty; kube-scheduler always names it")
    return Binding(values["PodNamespace"], values["PodName"], values["PodUID"], values["Node"])


def encode_filter(request: SchedulingRequest) -> bytes:
    """ExtenderFilterResult in which every node passes: what was sent goes back, in the mode it came in.

    An answer with neither names nor nodes would reject every node, so an empty request is answered with empty names.
    """
    names = b"[]" if request.names_json == NULL and request.nodes_json == NULL else request.names_json
    return b'{"Nodes":%b,"NodeNames":%b,"FailedNodes":{},"FailedAndUnresolvableNodes":{},"Error":""}' % (
        request.nodes_json,
        names,
    )


def encode_preemption(request: PreemptionRequest) -> bytes:
    """ExtenderPreemptionResult that keeps every node and every victim."""
    return msgspec.json.encode(
        {
            "NodeNameToMetaVictims": {
                node: {"Pods": [{"UID": uid} for uid in uids], "NumPDBViolations": violations}
                for node, (uids, violations) in request.victims.items()
            }
        }
    )


def encode_error(message: str) -> bytes:
    """``{"Error": message}``: an ExtenderBindingResult or ExtenderFilterResult, and the body of every refusal."""
    return msgspec.json.encode({"Error": message})


def above_zero(
    rows: NDArray[np.intp], priorities: NDArray[np.int64], unknown: Sequence[str], neutral: int
) -> tuple[NDArray[np.intp], NDArray[np.int64], Sequence[str], int]:
    """Return the nodes rated above 0, known and unknown, or all where none is.

    kube-scheduler takes a node that is not named to have 0. But from 1.35 on it draws among nodes of equal sum only if
    they are named: an answer may leave out nodes that cannot win, and never all.
    """
    (above,) = priorities.nonzero()
    if unknown and neutral > 0:
        return rows.take(above), priorities.take(above), unknown, neutral
    if len(above) == 0:
        return rows, priorities, unknown, neutral
    return rows.take(above), priorities.take(above), (), neutral


class HostEncoder:
    """Writes HostPriorityList from a table of bytes: one line a row, ready but for the two places of its priority.

    Every line has the same length: blanks fill it up before the priority, where JSON allows them. So an answer is made
    in three steps, however many nodes it names: copy the lines of the rows, write the priorities into them, join.
    """

    def __init__(self) -> None:
        self._lines = np.empty((0, _NUMBER), dtype=np.uint8)
        self._long: dict[int, bytes] = {}
        """Text up to the priority of rows whose names are too long for a line."""

    def set_host(self, row: int, name: str) -> None:
        """The node of this row is called `name` from now on."""
        text = _host(name)
        self._long.pop(row, None)
        if len(text) > LONGEST_LINE:
            self._long[row] = text
            text = b""
        rows, width = self._lines.shape
        if row >= rows or len(text) > width - _NUMBER:
            grown = max(row + 1, 2 * rows) if row >= rows else rows
            wider = max(width, len(text) + _NUMBER)  # no room to spare: kube-scheduler reads each blank twice
            lines = np.full((grown, wider), ord(" "), dtype=np.uint8)
            lines[:rows, : width - _NUMBER] = self._lines[:, :-_NUMBER]
            lines[:, -1] = ord("}")
            self._lines = lines
        line = self._lines[row]
        line[:-_NUMBER] = ord(" ")
        line[: len(text)] = np.frombuffer(text, dtype=np.uint8)

    def encode(
        self, rows: NDArray[np.intp], priorities: NDArray[np.int64], unknown: Sequence[str] = (), neutral: int = 0
    ) -> bytes:
        """HostPriorityList of known rows with their priorities, then of unknown names with the neutral one."""
        others = [b"%b%d}" % (_host(name), neutral) for name in unknown]
        if self._long:
            fits = np.array([row not in self._long for row in rows.tolist()], dtype=np.bool_)
            left = zip(rows[~fits].tolist(), priorities[~fits].tolist(), strict=True)
            others += [b"%b%d}" % (self._long[row], priority) for row, priority in left]
            rows, priorities = rows[fits], priorities[fits]
        lines = self._lines.take(rows, axis=0)
        lines[:, -_NUMBER:-1] = _PRIORITIES.take(priorities, axis=0)
        if len(lines):
            lines[0, 0] = ord("[")
            return b"".join((lines.data, *others, b"]"))
        return b"[%b]" % b"".join(others)[1:]


LONGEST_LINE: Final = 96
"""Bytes of a line up to its priority: names of up to 76 letters. Every line is as long as the longest of all nodes."""

_NUMBER: Final = 3
"""Bytes of a line that are its priority and the end."""

_PRIORITIES: Final = np.array([list(b"%2d" % priority) for priority in range(MAX_PRIORITY + 1)], dtype=np.uint8)


def _host(name: str) -> bytes:
    """An entry of a HostPriorityList up to its priority, with the comma before it."""
    return b',{"Host":%b,"Score":' % msgspec.json.encode(name)


def _top(body: bytes) -> dict[str, msgspec.Raw]:
    if not body:
        raise WireError("the request has no body; send extender/v1 JSON")
    return _folded(_decode(_TOP, body, ""))


def _folded(raw: dict[str, msgspec.Raw]) -> dict[str, msgspec.Raw]:
    """Keys in lower case, as Go matches them; of two spellings of one key the later counts, as in Go."""
    return {key.lower(): value for key, value in raw.items()}


def _required(fields: Mapping[str, msgspec.Raw], key: str, path: str | None = None) -> msgspec.Raw:
    value = fields.get(key.lower())
    if value is None or bytes(value) == NULL:
        raise WireError(f"{path or key} is missing; kube-scheduler always sends it")
    return value


def _too_many(path: str) -> WireError:
    return WireError(f"{path} has more than {MOST_NAMES} nodes", status=413)


def _violations(fields: Mapping[str, msgspec.Raw], path: str) -> int:
    return _decode(_COUNT, fields.get("numpdbviolations", NULL), f"{path}.NumPDBViolations") or 0


def _decode(decoder: msgspec.json.Decoder[T], raw: bytes | msgspec.Raw, path: str) -> T:
    """Decode one value; errors name its path from the top of the body."""
    try:
        return nulls.decode(decoder, raw)
    except msgspec.ValidationError as error:
        message, _, inner = kind_of(error).partition(" - at `$")
        where = f"{path}{inner.rstrip('`')}".lstrip(".") or "the body"
        raise WireError(f"{where}: {message}") from error
    except UNDECODABLE as error:
        raise WireError(f"{path or 'the body'} is not JSON: {kind_of(error)}") from error
