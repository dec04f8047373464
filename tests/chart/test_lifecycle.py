"""Upgrade, rollback, the loss of a leader, and removal: nothing is left behind and no pod is lost."""

import hashlib
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.chart.audit import AuditedControlPlane
from tests.chart.deployed import Extender
from tests.chart.helm import CHART, CI_VALUES, NAMESPACE, RELEASE, HelmError, template
from tests.chart.installation import LEASES, SERVICE, SIDECAR, Installation, installed
from tests.control_plane import access
from tests.control_plane.scheduler import PROFILE
from tests.control_plane.workload import Binds, create, pending_reason, pod

RELEASES = Path(__file__).parent / "releases"
PREVIOUS = RELEASES / "maddpg-scheduler-0.1.0.tgz"
LASTING = {
    "CustomResourceDefinition",
    "MutatingWebhookConfiguration",
    "ValidatingWebhookConfiguration",
    "ValidatingAdmissionPolicy",
    "APIService",
    "PriorityClass",
}
"""Kinds that helm would leave, or that would go on to change or refuse pods."""


@pytest.fixture
def installation(control_plane: AuditedControlPlane, nodes: None, home: Path, tmp_path: Path) -> Iterator[Installation]:
    """The chart as it is by default, but for quick leases."""
    with installed(control_plane, home, tmp_path, SIDECAR) as made:
        yield made


def _upgrade(installation: Installation, *sets: str) -> None:
    given = [part for each in sets for part in ("--set", each)]
    installation.helm("upgrade", RELEASE, str(CHART), "--reuse-values", "--wait", "--timeout", "60s", *given)


def test_upgrade_and_rollback_change_the_configuration_and_back(installation: Installation) -> None:
    before = installation.own_objects()
    assert installation.deployed.file(RELEASE, "config.yaml")["extenders"][0]["weight"] == 10
    pods = _pods(installation)

    _upgrade(installation, "scheduler.extender.weight=3", "extender.settings.deadline_ms=20")
    assert installation.deployed.file(RELEASE, "config.yaml")["extenders"][0]["weight"] == 3
    assert installation.deployed.file(f"{RELEASE}-extender", "settings.yaml")["deadline_ms"] == 20
    assert not _pods(installation) & pods, "every pod was replaced"

    installation.helm("rollback", RELEASE, "1", "--wait", "--timeout", "60s")
    assert installation.deployed.file(RELEASE, "config.yaml")["extenders"][0]["weight"] == 10
    assert "deadline_ms" not in installation.deployed.file(f"{RELEASE}-extender", "settings.yaml")
    assert _lasting(installation.own_objects()) == _lasting(before)


def _pods(installation: Installation) -> set[str]:
    listed = access.request(installation.api, "GET", f"/api/v1/namespaces/{NAMESPACE}/pods")["items"]
    return {each["metadata"]["uid"] for each in listed if not each["metadata"].get("deletionTimestamp")}


def _lasting(objects: set[str]) -> set[str]:
    """Without pods and ReplicaSets, whose names change with each version."""
    return {each for each in objects if not each.startswith(("pods/", "replicasets/"))}


def test_upgrade_to_a_service_and_back_leaves_no_object_of_the_other_mode(installation: Installation) -> None:
    before = _lasting(installation.own_objects())
    _upgrade(installation, "extender.mode=service")
    assert f"deployments/{RELEASE}-extender" in installation.own_objects()
    _upgrade(installation, "extender.mode=sidecar")
    assert _lasting(installation.own_objects()) == before


def test_bad_upgrade_is_refused_and_changes_nothing(installation: Installation) -> None:
    before = installation.own_objects()
    with pytest.raises(Exception, match=r"at '/extender/settings': additional properties 'deadlin_ms' not allowed"):
        _upgrade(installation, "extender.settings.deadlin_ms=20")
    assert installation.own_objects() == before


def test_removal_leaves_nothing_but_the_lease_and_running_pods_alone(installation: Installation) -> None:
    account = installation.scheduler_account
    with installation.deployed.extender(account) as extender:
        with installation.deployed.scheduler(account, extender.url), Binds(installation.api) as binds:
            create(installation.api, [pod("placed", scheduler=PROFILE)])
            binds.wait(["placed"])
        installation.helm("uninstall", RELEASE, "--wait", "--timeout", "60s")

    assert installation.own_objects() == set()
    leases = access.request(installation.api, "GET", LEASES)["items"]
    assert [each["metadata"]["name"] for each in leases] == [RELEASE], "kube-scheduler made it; it holds nothing up"
    with Binds(installation.api) as binds:
        create(installation.api, [pod("waits", scheduler=PROFILE), pod("usual")])
        assert binds.wait(["usual"]), "the cluster's own scheduler goes on"
        assert "waits" not in binds.bound
    placed = access.request(installation.api, "GET", "/api/v1/namespaces/default/pods/placed")
    assert placed["status"]["phase"] == "Running"
    assert pending_reason(installation.api, "waits") == "no kube-scheduler has looked at it"
    # what docs/upgrade.md says of such a pod: made again without the profile, it runs
    with Binds(installation.api) as binds:
        create(installation.api, [pod("again")])
        binds.wait(["again"])


def _placed(installation: Installation, extender: Extender, name: str) -> bool:
    """Whether a pod made now is bound, after the extender was asked about it."""
    with Binds(installation.api) as binds:
        create(installation.api, [pod(name, scheduler=PROFILE, cpu="10m")])
        binds.wait([name])
    uid = access.request(installation.api, "GET", f"/api/v1/namespaces/default/pods/{name}")["metadata"]["uid"]
    return extender.decided(uid)


def test_rendered_configuration_suits_every_supported_version_of_kube_scheduler(installation: Installation) -> None:
    """In the middle of an upgrade of the cluster the scheduler is older than the API server.

    It takes over from a newer one as well: the lease is the former's until it lets go of it.
    """
    account, deployed = installation.scheduler_account, installation.deployed
    versions = sorted(installation.plane.binaries.schedulers)
    assert [version.rsplit(".", 1)[0] for version in versions] == ["1.34", "1.35", "1.36", "1.37"]
    with deployed.extender(account) as extender:
        for version in versions:
            with deployed.scheduler(account, extender.url, version=version):
                assert _placed(installation, extender, f"by-{version}"), version


def test_metrics_and_the_call_over_loopback_go_over_tls_where_that_is_asked_for(installation: Installation) -> None:
    _upgrade(installation, "tls.operations=true")
    account, deployed = installation.scheduler_account, installation.deployed
    with deployed.extender(account) as extender, deployed.scheduler(account, extender.url):
        assert (extender.url.split(":")[0], extender.operations.split(":")[0]) == ("https", "https")
        assert _placed(installation, extender, "over-tls")
        assert extender.metric("maddpg_synced") == 1.0


def test_readers_show_a_certificate_where_it_is_demanded(installation: Installation, tmp_path: Path) -> None:
    _upgrade(installation, "tls.operations=true")
    demanded = "tls.operationsClients.required=true"
    with pytest.raises(HelmError, match="delete both Secrets"):
        _upgrade(installation, demanded)
    for name in _certificates(installation):
        access.request(installation.api, "DELETE", f"/api/v1/namespaces/{NAMESPACE}/secrets/{name}")
    _upgrade(installation, demanded)
    made = _certificates(installation)
    assert len(made) == 3
    _upgrade(installation, "scheduler.extender.weight=3")
    assert _certificates(installation) == made
    deployed = installation.deployed
    with deployed.extender(installation.scheduler_account) as extender:
        assert extender.metric("maddpg_synced") == 1.0
        folders = [str(deployed.secret(f"{RELEASE}-{who}-tls", tmp_path)) for who in ("client", "reader")]
        asked = [extender.operations, f"https://localhost:{extender.port}", *folders]
        script = (CHART / "files" / "probe.py").read_text()
        for arguments, said in ((asked, "ready, and rates nodes"), (asked[:-1], "answered 403")):
            done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True)
            assert said in done.stdout + done.stderr


@pytest.mark.parametrize("mode", [SIDECAR, SERVICE])
def test_chart_is_upgraded_from_the_previous_release_and_rolled_back(
    control_plane: AuditedControlPlane, nodes: None, home: Path, tmp_path: Path, mode: str
) -> None:
    """Old and new pods stand side by side for a while, as in a rolling update; certificates are kept throughout."""
    with installed(control_plane, home, tmp_path, mode, chart=PREVIOUS) as installation:
        deployed, extender_account = installation.deployed, installation.extender_account
        before = installation.own_objects()
        certificates = _certificates(installation)
        assert bool(certificates) == (mode == SERVICE)
        with (
            deployed.extender(extender_account) as old,
            deployed.scheduler(installation.scheduler_account, old.url) as leader,
        ):
            assert _placed(installation, old, f"{mode}-old")
            installation.helm("upgrade", RELEASE, str(CHART), "--reset-then-reuse-values", "--wait", "--timeout", "60s")
            assert _certificates(installation) == certificates
            with (
                deployed.extender(extender_account) as new,
                deployed.scheduler(installation.scheduler_account, new.url),
            ):
                assert _placed(installation, old, f"{mode}-meanwhile"), "the old one leads until it goes"
                leader.stop()
                assert _placed(installation, new, f"{mode}-new")
        installation.helm("rollback", RELEASE, "1", "--wait", "--timeout", "60s")
        assert _lasting(installation.own_objects()) == _lasting(before)
        assert _certificates(installation) == certificates
        with deployed.extender(extender_account) as back, deployed.scheduler(installation.scheduler_account, back.url):
            assert _placed(installation, back, f"{mode}-rolled-back")
        installation.helm("uninstall", RELEASE, "--wait", "--timeout", "60s")
        assert installation.own_objects() == set()


def _certificates(installation: Installation) -> dict[str, dict[str, str]]:
    """Name to content of every Secret with a certificate."""
    listed = access.request(installation.api, "GET", f"/api/v1/namespaces/{NAMESPACE}/secrets")["items"]
    return {each["metadata"]["name"]: each["data"] for each in listed if "tls.crt" in each.get("data", {})}


def test_previous_release_is_the_one_that_was_packaged() -> None:
    (listed,) = (RELEASES / "SHA256SUMS").read_text().splitlines()
    assert listed.split() == [hashlib.sha256(PREVIOUS.read_bytes()).hexdigest(), PREVIOUS.name]
    with tarfile.open(PREVIOUS) as package:
        content = package.extractfile("maddpg-scheduler/Chart.yaml")
        assert content
        old = yaml.safe_load(content.read())["version"]
    new = yaml.safe_load((CHART / "Chart.yaml").read_text())["version"]
    assert [int(part) for part in old.split(".")] < [int(part) for part in new.split(".")]


def test_nothing_of_the_chart_outlives_its_removal(home: Path) -> None:
    """No definition, webhook or finalizer: what a release leaves behind is its lease, and pods as they run."""
    assert not (CHART / "crds").exists()
    for values in CI_VALUES:
        for each in template(home, files=[values]).objects:
            if each["kind"] == "PriorityClass":  # the benchmark's own: pods that nobody else's workload names it for
                assert each["metadata"]["labels"]["app.kubernetes.io/component"] == "benchmark"
                assert not each.get("globalDefault"), "it would go on to change pods that name no class"
                continue
            assert each["kind"] not in LASTING, f"{values.name} renders {each['kind']}"
            assert not each["metadata"].get("finalizers"), each
            assert each["metadata"].get("annotations", {}).get("helm.sh/resource-policy") != "keep", each


def test_second_replica_takes_over_when_the_leaders_pod_dies(installation: Installation) -> None:
    """In mode sidecar a pod is a kube-scheduler and its extender: both are killed at once, as with their node."""
    account, deployed = installation.scheduler_account, installation.deployed
    names = [f"under-way-{number}" for number in range(60)]
    with (
        deployed.extender(account) as first,
        deployed.scheduler(account, first.url) as leader,
        deployed.extender(account) as second,
        deployed.scheduler(account, second.url) as other,
        Binds(installation.api) as binds,
    ):
        create(installation.api, [pod(name, scheduler=PROFILE, cpu="10m") for name in names[:20]])
        binds.wait(names[:20])
        known = second.get("/v1/decisions?limit=100")[1]["decisions"]
        assert {each["verb"] for each in known} <= {"watch"}, "only the leader asks; the other sees pods bound"
        leader.kill()
        first.process.kill()
        create(installation.api, [pod(name, scheduler=PROFILE, cpu="10m") for name in names[20:]])
        bound = binds.wait(names, 30.0)
        assert other.running
        asked = [each["verb"] for each in second.get("/v1/decisions?limit=100")[1]["decisions"]]
        assert asked.count("prioritize") == 40
    assert len(bound) == len(names)
