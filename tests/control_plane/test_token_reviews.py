"""Whose a token is, as a real API server tells the extender's ServiceAccount with the rights of deploy/rbac.yaml."""

import time
from pathlib import Path

import pytest

from extender.cluster.answers import ApiError
from extender.cluster.api import ApiServer
from extender.cluster.reviews import reviewed
from extender.cluster.source import Reviewed
from tests.control_plane import access
from tests.control_plane.cluster import EXTENDER_NAMESPACE, EXTENDER_SERVICE_ACCOUNT, ControlPlane

ROLE = "maddpg-extender-authentication"


def _once_allowed(api: ApiServer, token: str) -> Reviewed:
    """RBAC has a cache of its own."""
    deadline = time.monotonic() + 15.0
    while True:
        try:
            return reviewed(api, token)
        except ApiError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def test_a_real_api_server_says_whose_a_token_is(control_plane: ControlPlane, tmp_path: Path) -> None:
    api = ApiServer(control_plane.extender_kubeconfig(tmp_path / "kubeconfig"))
    reader = access.service_account_token(control_plane.api, "default", "default")
    with pytest.raises(ApiError, match="403 Forbidden"):
        reviewed(api, reader)
    binding: access.Manifest = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": ROLE},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": ROLE},
        "subjects": [{"kind": "ServiceAccount", "name": EXTENDER_SERVICE_ACCOUNT, "namespace": EXTENDER_NAMESPACE}],
    }
    access.apply(control_plane.api, [binding])
    try:
        found = _once_allowed(api, reader)
        assert {"system:serviceaccount:default:default", "system:authenticated"} <= found.names
        assert not found.own
        own = access.service_account_token(control_plane.api, EXTENDER_NAMESPACE, EXTENDER_SERVICE_ACCOUNT)
        assert reviewed(api, own).own
        for wrong in ("no-token", reader[:-4] + "AAAA", reader.rpartition(".")[0]):
            assert reviewed(api, wrong).names == frozenset()
    finally:
        access.delete(control_plane.api, [binding])
