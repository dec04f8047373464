"""Random histories, with accidents of every kind in between, end with the table holding what the server holds."""

import json
import random
import time
from collections.abc import Callable

import pytest

from tests.extender.cluster.fake_api import ENDED, NODES, PODS, FakeApi
from tests.extender.cluster.following import Following, eventually, node, pod
from tests.extender.tables import node_names

Truth = tuple[set[str], dict[str, tuple[str, float]]]


def truth(api: FakeApi) -> Truth:
    """Names of nodes, and node and CPU request (cores) of every bound pod."""
    pods = {}
    for body in list(api.collections[PODS].objects.values()):
        content = json.loads(body)
        if (on := content["spec"].get("nodeName")) and content["status"]["phase"] not in ENDED:
            cpu = content["spec"]["containers"][0]["resources"]["requests"]["cpu"]
            pods[content["metadata"]["uid"]] = (on, float(cpu.removesuffix("m")) / 1000.0)
    return set(api.collections[NODES].objects), pods


def known(following: Following) -> Truth:
    return following.see(
        lambda table: (
            set(node_names(table)),
            {uid: (held.node, held.cpu / 1e9) for uid, held in table._pods.items()},
        )
    )


def accident(api: FakeApi, rng: random.Random) -> None:
    match rng.randrange(6):
        case 0:
            api.cut_watches()
        case 1:
            api.compact()
            api.cut_watches()
        case 2:
            api.send(rng.choice([NODES, PODS]), b"garbage\n")
        case 3:
            api.bookmark(rng.choice([NODES, PODS]))
        case 4:
            api.stop()
            api.start()
        case 5:
            # Never told to any watch: the compaction forces the list that finds out.
            if keys := list(api.collections[PODS].objects):
                api.delete(PODS, rng.choice(keys), watched=False)
            api.compact()
            api.cut_watches()


def step(api: FakeApi, rng: random.Random, number: int) -> None:
    nodes, pods = list(api.collections[NODES].objects), list(api.collections[PODS].objects)
    match rng.choices(["pod", "delete", "bind", "end", "node", "remove"], [6, 3, 4, 2, 1, 1])[0]:
        case "pod":
            on = rng.choice([*nodes, "not-there-yet", None])
            api.put(PODS, f"p{number}", pod(f"p{number}", on=on, cpu=f"{rng.randrange(1, 2000)}m"))
        case "delete" if pods:
            api.delete(PODS, rng.choice(pods))
        case "bind" if pods and nodes:
            key = rng.choice(pods)
            content = json.loads(api.collections[PODS].objects[key])
            content["spec"].setdefault("nodeName", rng.choice(nodes))
            api.put(PODS, key, content)
        case "end" if pods:
            key = rng.choice(pods)
            content = json.loads(api.collections[PODS].objects[key])
            content["status"]["phase"] = rng.choice(["Succeeded", "Failed"])
            api.put(PODS, key, content)
        case "node":
            name = rng.choice(["not-there-yet", f"n{number}"])
            api.put(NODES, name, node(name))
        case "remove" if len(nodes) > 1:
            api.delete(NODES, rng.choice(nodes))


@pytest.mark.parametrize("seed", range(4))
def test_the_table_ends_equal_to_the_server(api: FakeApi, follow: Callable[..., Following], seed: int) -> None:
    rng = random.Random(seed)
    api.put(NODES, "n0", node("n0"))
    following = follow(page=7)
    for number in range(300):
        step(api, rng, number)
        time.sleep(0.003)  # so that accidents meet watches at work
        if rng.random() < 0.02:
            accident(api, rng)
    eventually(lambda: following.source.synced and known(following) == truth(api), "equal", 15.0)
    requested = following.requested()
    for name in truth(api)[0]:
        sums = sum(cpu for on, cpu in truth(api)[1].values() if on == name)
        assert requested[name][0] == pytest.approx(sums, abs=1e-9)
