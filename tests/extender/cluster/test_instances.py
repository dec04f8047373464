"""Published speeds of instance types: each with its source, none without."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from extender.cluster.decoding import decode_node
from extender.cluster.instances import REFERENCE_COREMARK, SOURCES, _series, published_speed
from extender.cluster.machines import SpeedRules, declared_speed


@pytest.mark.parametrize(
    ("instance_type", "coremark", "read_from"),
    [
        ("n2-standard-8", 17_321, "n2-standard-8"),
        ("n2d-highmem-64", 20_482, "n2d-standard-8"),
        ("c3d-standard-360", 24_073, "c3d-standard-8"),
        ("c3-standard-4", 20_043, "c3-standard-8"),
        ("e2-highcpu-4", 12_995, "e2-standard-8"),
        ("Standard_D16s_v5", 16_163, "Standard_D8s_v5"),
        ("Standard_D4_v3", 12_553, "Standard_D8_v3"),
        ("Standard_E8-4ads_v5", 19_221, "Standard_E8ads_v5"),
    ],
)
def test_an_instance_type_has_the_speed_of_its_series(instance_type: str, coremark: float, read_from: str) -> None:
    found = published_speed(instance_type)
    assert found is not None
    assert found.read_from == read_from
    assert found.speed == pytest.approx(coremark / REFERENCE_COREMARK)


@pytest.mark.parametrize(
    "instance_type", ["m5.large", "e2-micro", "n2", "", "Standard_D8s_v6", "kind", "n2-standard-8\n"]
)
def test_what_nobody_published_has_none(instance_type: str) -> None:
    assert published_speed(instance_type) is None


def test_every_row_names_its_source_and_matches_the_size_it_was_read_from() -> None:
    for pattern, speed in _series():
        assert pattern.fullmatch(speed.read_from), speed.read_from
        assert published_speed(speed.read_from) is not None
        assert speed.source in SOURCES.values()
        assert speed.as_of
        assert 0.3 < speed.speed < 3.0


def test_a_node_has_the_published_speed_where_nothing_else_gives_one() -> None:
    labels = {"node.kubernetes.io/instance-type": "e2-standard-8"}
    assert speed_of(labels) == pytest.approx(12_995 / REFERENCE_COREMARK)
    assert speed_of(labels, published=False) == 1.0
    assert speed_of(labels, by_instance_type={"e2-standard-8": 0.6}) == 0.6
    assert speed_of({**labels, "maddpg-scheduler.io/speed": "0.9"}) == 0.9
    assert speed_of({"node.kubernetes.io/instance-type": "m5.large"}) == 1.0
    assert speed_of({}) == 1.0


def speed_of(labels: dict[str, str], **rules: Any) -> float:
    node = decode_node(msgspec.json.encode({"metadata": {"name": "n", "labels": labels}}))
    return declared_speed(node, SpeedRules(**{"published": True, **rules}))[0]
