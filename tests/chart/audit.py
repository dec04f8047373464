"""A control plane whose API server writes an audit log, and what that log says of a ServiceAccount."""

import json
from dataclasses import dataclass
from typing import Any

import yaml

from tests.control_plane.certificates import KeyPair
from tests.control_plane.cluster import ControlPlane
from tests.control_plane.processes import Process

POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        # the chart's ServiceAccounts live in namespaces named maddpg-*; the control plane's own traffic would be most
        {"level": "Metadata", "userGroups": ["system:serviceaccounts:maddpg-scheduler"]},
        {"level": "None"},
    ],
}


@dataclass(frozen=True)
class Right:
    """One verb on one resource, as RBAC names it."""

    group: str
    resource: str
    verb: str


class AuditedControlPlane(ControlPlane):
    """Writes what ServiceAccounts of the namespace maddpg-scheduler ask for to a file."""

    def _api_server(self, port: int, account_key: KeyPair) -> Process:
        policy, self.audit_log = self.directory / "audit-policy.yaml", self.directory / "audit.log"
        policy.write_text(yaml.safe_dump(POLICY))
        process = super()._api_server(port, account_key)
        process._command += [f"--audit-policy-file={policy}", f"--audit-log-path={self.audit_log}"]
        return process

    def audited(self, account: str) -> list[dict[str, Any]]:
        """The events of that ServiceAccount of the namespace maddpg-scheduler."""
        user = f"system:serviceaccount:maddpg-scheduler:{account}"
        events = [json.loads(line) for line in self.audit_log.read_text().splitlines() if line.startswith("{")]
        return [event for event in events if event["user"]["username"] == user]

    def used(self, account: str) -> set[Right]:
        """The rights on resources that the ServiceAccount has made use of."""
        return {
            Right(reference.get("apiGroup", ""), _resource(reference), event["verb"])
            for event in self.audited(account)
            if (reference := event.get("objectRef"))
            and event["annotations"].get("authorization.k8s.io/decision") == "allow"
        }

    def refused(self, account: str) -> set[Right]:
        """What it asked for in vain."""
        return {
            Right(reference.get("apiGroup", ""), _resource(reference), event["verb"])
            for event in self.audited(account)
            if (reference := event.get("objectRef"))
            and event["annotations"].get("authorization.k8s.io/decision") == "forbid"
        }


def granted(rules: list[dict[str, Any]]) -> set[Right]:
    """What RBAC rules allow, one by one."""
    return {
        Right(group, resource, verb)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def _resource(reference: dict[str, Any]) -> str:
    part = reference.get("subresource")
    return f"{reference['resource']}/{part}" if part else str(reference["resource"])
