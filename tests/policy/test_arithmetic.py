"""One node asked about alone has, bit for bit, the numbers it has among many: Python's floats round as numpy's."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from policy import criteria, shortage
from policy.cluster import ClusterState, PodDemand
from policy.observation import estimated_pressure, estimated_pressure_of_one, observe, observe_unclipped
from tests.policy.states import demands, silent_demands

amounts = st.floats(0.0, 1e4)
sizes = st.floats(1e-3, 1e4)
rows = st.lists(
    st.tuples(
        sizes, sizes, amounts, amounts, amounts, amounts, st.floats(0.0, 1.0), sizes, amounts, amounts, amounts, sizes
    ),
    min_size=2,
)


def alike(one: NDArray[np.float32], other: NDArray[np.float32]) -> None:
    """The same shape, type and bits."""
    assert (one.shape, one.dtype) == (other.shape, other.dtype)
    assert one.tobytes() == other.tobytes()


@settings(max_examples=200)
@given(table=rows, demand=demands | silent_demands)
def test_a_node_alone_has_the_numbers_it_has_among_many(table: list[tuple[float, ...]], demand: PodDemand) -> None:
    columns = np.array(table).T
    many = ClusterState(*columns[:8], np.zeros(len(table), dtype=np.int64), *columns[8:])
    asked = (observe_unclipped, observe, criteria.evaluate, criteria.physical)
    together = [ask(many, demand) for ask in asked]
    pressures = estimated_pressure(many.cpu_used, many.cpu_allocatable)
    for row in range(len(table)):
        one = many.take(np.array([row]))
        for whole, ask in zip(together, asked, strict=True):
            alike(ask(one, demand), whole[row : row + 1])
        wanted = np.linspace(-1.0, 1.0, len(table), dtype=np.float32)
        alike(shortage.bounded(wanted[[row]], one, demand), shortage.bounded(wanted, many, demand)[row : row + 1])
        assert estimated_pressure_of_one(one.cpu_used.item(), one.cpu_allocatable.item()) == pressures[row]
