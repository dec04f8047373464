"""What the pods of Jobs and CronJobs show of them, as Kubernetes' own controllers make them."""

import time

import msgspec
import pytest

from extender.cluster.decoding import decode_pod
from extender.demand import signs_of
from extender.workloads import CronRun, Workloads, cron_run
from tests.control_plane.access import Manifest, request
from tests.control_plane.cluster import ControlPlane

BATCH = "/apis/batch/v1/namespaces/default"
PODS = "/api/v1/namespaces/default/pods"
SCHEDULED = "batch.kubernetes.io/cronjob-scheduled-timestamp"
TEMPLATE: Manifest = {
    "activeDeadlineSeconds": 45,
    "template": {
        "spec": {
            "restartPolicy": "Never",
            "activeDeadlineSeconds": 30,
            "containers": [{"name": "main", "image": "fake"}],
        }
    },
}


@pytest.mark.long
def test_pods_of_a_cronjob_show_when_they_were_scheduled_and_their_own_deadline_alone(cluster: ControlPlane) -> None:
    content = {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": "backup-2"},
        "spec": {"schedule": "* * * * *", "jobTemplate": {"spec": TEMPLATE}},
    }
    began = time.time()
    request(cluster.api, "POST", f"{BATCH}/cronjobs", content)
    try:
        deadline = time.monotonic() + 120.0
        while not (found := request(cluster.api, "GET", PODS)["items"]):
            assert time.monotonic() < deadline, "the CronJob made no pod"
            time.sleep(1.0)
        pod = decode_pod(msgspec.Raw(msgspec.json.encode(found[0])))
        run = cron_run("default", pod.metadata.controller, time.time())
        assert run is not None
        assert run == CronRun("default", "backup-2", run.minute)
        assert began - 60.0 <= 60.0 * run.minute <= time.time()
        signs = signs_of(pod, None, Workloads())
        assert (signs.owner_kind, signs.owner_name, signs.deadline_s) == ("CronJob", "backup-2", 30.0)
        (job,) = request(cluster.api, "GET", f"{BATCH}/jobs")["items"]
        assert SCHEDULED in job["metadata"]["annotations"]
        assert SCHEDULED not in (found[0]["metadata"].get("annotations") or {}), (
            "if pods had it, names need not be read"
        )
        assert job["spec"]["activeDeadlineSeconds"] == 45
    finally:
        request(cluster.api, "DELETE", f"{BATCH}/cronjobs/backup-2?propagationPolicy=Foreground")
