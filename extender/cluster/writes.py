"""What is said on a pod, as a request to the API server: an Event, or an annotation. Refuses to know what it says."""

from __future__ import annotations

import datetime as dt
import socket
from typing import Any, Final
from urllib.parse import quote

from extender.cluster.api import ApiServer
from extender.cluster.source import PodNote

REASON_ANNOTATION: Final = "maddpg-scheduler.io/reason"
REPORTER: Final = "maddpg-scheduler.io/extender"
LONGEST_NOTE: Final = 1024
"""Characters of an Event's note that the API server takes."""

LONGEST_PREFIX: Final = 230
"""Characters of the pod's name in an Event's: the API server adds some, to 253 at most."""


def write_note(api: ApiServer, note: PodNote) -> None:
    """Write it; an annotation replaces that of an earlier note. Raises `ApiError` if refused, or not reached."""
    namespace = quote(note.namespace, safe="")
    if note.form == "event":
        api.post(f"/apis/events.k8s.io/v1/namespaces/{namespace}/events", _event(note))
    else:
        path = f"/api/v1/namespaces/{namespace}/pods/{quote(note.name, safe='')}"
        # with the UID, so a pod that replaced it is left alone
        metadata = {"uid": note.uid, "annotations": {REASON_ANNOTATION: note.text}}
        api.patch(path, {"metadata": metadata})


def _event(note: PodNote) -> dict[str, Any]:
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"namespace": note.namespace, "generateName": f"{note.name[:LONGEST_PREFIX].rstrip('.-')}-rated-"},
        "eventTime": dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "type": "Normal",
        "reason": "Rated",
        "action": "Rating",
        "reportingController": REPORTER,
        "reportingInstance": socket.gethostname()[:128],
        "regarding": {
            "apiVersion": "v1",
            "kind": "Pod",
            "namespace": note.namespace,
            "name": note.name,
            "uid": note.uid,
        },
        "note": note.text[:LONGEST_NOTE],
    }
