"""Records what each minor version of Kubernetes sums of odd pods: `python -m tests.control_plane.record_requests`.

Random pods in the middle of resizes, with and without statuses and requests of their own, are summed by that version's
own component-helpers, as kube-scheduler asks for it: for a pod on a node (`PodInfo.CalculateResource`) and for one that
is scored (`calculatePodResourceRequest`). tests/extender/test_requests.py replays the file.
"""

import json
import random
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Final

from tests.control_plane.binaries import MODULES
from tests.control_plane.toolchain import REPOSITORY, find_go, go_environment

RECORDED: Final = REPOSITORY / "tests" / "extender" / "upstream" / "requests.json"
PODS: Final = 60
VERSIONS: Final = {"1.34": "kube-1.34", "1.35": "kube-1.35", "1.36": "kube-1.36", "1.37": "kube"}
"""Minor version -> folder of its pinned modules."""

POD_LEVEL: Final = {"1.34": "", "1.35": "false", "1.36": "true", "1.37": "true"}
"""Default of InPlacePodLevelResourcesVerticalScaling; empty where there is no such option yet."""

PROGRAM: Final = """
package main

import (
	"encoding/json"
	"os"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	helper "k8s.io/component-helpers/resource"
)

func options() helper.PodResourcesOptions {
	return helper.PodResourcesOptions{UseStatusResources: true, %s}
}

func missing() v1.ResourceList {
	return v1.ResourceList{
		v1.ResourceCPU:    *resource.NewMilliQuantity(100, resource.DecimalSI),
		v1.ResourceMemory: *resource.NewQuantity(200*1024*1024, resource.DecimalSI),
	}
}

// As getNonMissingContainerRequests in pkg/scheduler/framework/types.go.
func missingOnNode(requests v1.ResourceList, podLevel bool) v1.ResourceList {
	if !podLevel {
		return missing()
	}
	left := v1.ResourceList{}
	for name, quantity := range missing() {
		if _, said := requests[name]; !said {
			left[name] = quantity
		}
	}
	return left
}

func pair(requests v1.ResourceList) []int64 {
	cpu, memory := requests[v1.ResourceCPU], requests[v1.ResourceMemory]
	return []int64{cpu.MilliValue(), memory.Value()}
}

func main() {
	var pods []v1.Pod
	if err := json.NewDecoder(os.Stdin).Decode(&pods); err != nil {
		panic(err)
	}
	sums := [][]int64{}
	for i := range pods {
		pod := &pods[i]
		requests := helper.PodRequests(pod, options())
		bound, scored := options(), options()
		bound.NonMissingContainerRequests = missingOnNode(requests, helper.IsPodLevelRequestsSet(pod))
		scored.NonMissingContainerRequests = missing()
		sum := append(pair(requests), pair(helper.PodRequests(pod, bound))...)
		sums = append(sums, append(sum, pair(helper.PodRequests(pod, scored))...))
	}
	if err := json.NewEncoder(os.Stdout).Encode(sums); err != nil {
		panic(err)
	}
}
"""

Json = dict[str, Any]


def pods(seed: int, count: int) -> list[Json]:
    """Random pods: most of them no API server would store, and each is a corner of the sum."""
    draw = random.Random(seed)

    def requests(share: float = 0.6) -> Json:
        amounts = {
            "cpu": ("0", "1m", "50m", "250m", "1", "2", "6"),
            "memory": ("0", "1Mi", "64Mi", "1Gi", "4Gi", "256m"),
        }
        return {name: draw.choice(several) for name, several in amounts.items() if draw.random() < share}

    def container(name: str, *, starts: bool) -> Json:
        made: Json = {"name": name, "resources": {"requests": requests()} if draw.random() < 0.8 else {}}
        if starts and draw.random() < 0.5:
            made["restartPolicy"] = "Always"
        return made

    def status(of: Json) -> Json:
        told: Json = {"name": of["name"]}
        wanted = of["resources"].get("requests") if draw.random() < 0.3 else None
        if draw.random() < 0.8:
            told["resources"] = {"requests": wanted or requests()} if draw.random() < 0.85 else {}
        if draw.random() < 0.8 and (allocated := wanted or requests()):
            told["allocatedResources"] = allocated
        return told

    def pod(number: int) -> Json:
        spec: Json = {"containers": [container(f"c{i}", starts=False) for i in range(draw.randrange(4))]}
        if draw.random() < 0.5:
            spec["initContainers"] = [container(f"i{i}", starts=True) for i in range(draw.randrange(1, 4))]
        if draw.random() < 0.25:
            spec["overhead"] = requests()
        if draw.random() < 0.35:
            spec["resources"] = {"requests": requests(0.5)}
        told: Json = {}
        if draw.random() < 0.7:
            for kind, statuses in (("containers", "containerStatuses"), ("initContainers", "initContainerStatuses")):
                told[statuses] = [status(each) for each in spec.get(kind, ()) if draw.random() < 0.85]
        if draw.random() < 0.35:
            told["resources"] = {"requests": requests()} if draw.random() < 0.85 else {}
        if draw.random() < 0.35:
            told["allocatedResources"] = requests()
        if draw.random() < 0.4:
            reason = draw.choice(("Infeasible", "Infeasible", "Deferred"))
            told["conditions"] = [{"type": "PodResizePending", "status": "True", "reason": reason}]
        return {"metadata": {"name": f"p{number}", "uid": f"u{number}"}, "spec": spec, "status": told}

    return [pod(number) for number in range(count)]


def sums(version: str, of: list[Json]) -> list[list[int]]:
    """For each pod: millicores and bytes requested, those that scores count on a node, and those of a scored pod."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("go.mod", "go.sum"):
            shutil.copy(MODULES / VERSIONS[version] / name, folder)
        option = POD_LEVEL[version]
        given = f"InPlacePodLevelResourcesVerticalScalingEnabled: {option}" if option else ""
        Path(folder, "main.go").write_text(PROGRAM % given, encoding="utf-8")
        go = find_go((1, 24))
        ran = subprocess.run(
            [str(go), "run", "-mod=mod", "."],
            cwd=folder,
            env=go_environment(go),
            input=json.dumps(of),
            capture_output=True,
            text=True,
            check=True,
        )
    return list(json.loads(ran.stdout))


def main() -> None:
    """Write the file."""
    made = pods(1, PODS)
    by_version = {version: sums(version, made) for version in VERSIONS}
    rows = [{"pod": pod, **{version: by_version[version][i] for version in VERSIONS}} for i, pod in enumerate(made)]
    RECORDED.write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
