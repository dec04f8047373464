"""Traces: our own CSV, the openb format, and openb itself where it lies beside the repository."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from policy.cluster import NONZERO_CPU, NONZERO_MEMORY
from policy.criteria import EXPECTED_USE_RATIO
from policy.errors import InvalidInputError
from training.simulator.sample import write
from training.simulator.scenarios import FOLDER, Scenario, load_scenario
from training.simulator.simulation import Simulator
from training.simulator.traces import load_trace
from training.simulator.workload import load_workload

OPENB = Path(os.environ.get("OPENB_DIR", Path(__file__).parents[4] / "shared" / "traces"))
OPENB_PODS = OPENB / "openb_pod_list_default.csv"

OWN = "arrival,class,cpu,memory,duration\n"
OPENB_HEADER = (
    "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos,pod_phase,creation_time,deletion_time,scheduled_time\n"
)


def with_trace(path: Path | str, **changes: object) -> Scenario:
    scenario = load_scenario("trace")
    return replace(scenario, arrivals=replace(scenario.arrivals, trace=str(path), **changes))


def test_our_own_format_is_read_as_documented(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    path.write_text(OWN + "0,LS,4,16,600\n10,BE,1.3,2,300\n40,LS,2,2,50\n", encoding="utf-8")
    trace = load_trace(with_trace(path, duration_scale=0.5, duration_range=(30.0, 250.0), longest_gap=100.0))
    assert trace.kind.tolist() == [0, 3, 0]
    assert trace.cpu.tolist() == [4.0, 1.375, 2.0]
    assert trace.memory.tolist() == [16.0, 2.0, 2.0]
    assert trace.duration.tolist() == [250.0, 150.0, 30.0]
    # gaps 0, 10, 30 s over their mean
    assert trace.gap.tolist() == pytest.approx([0.0, 0.75, 2.25])
    assert trace.skipped == 0


def test_openb_is_read_as_published(tmp_path: Path) -> None:
    path = tmp_path / "openb.csv"
    path.write_text(
        OPENB_HEADER
        + "b,6000,12288,1,460,,BE,Succeeded,100,700,200\n"
        + "a,12000,16384,1,1000,,LS,Running,0,400,0\n"
        + "c,12000,16384,1,1000,,LS,Pending,150,,\n"
        + "d,900000,16384,1,1000,,LS,Running,160,400,160\n",
        encoding="utf-8",
    )
    trace = load_trace(with_trace(path, duration_scale=1.0, duration_range=(1.0, 1000.0)))
    assert trace.cpu.tolist() == [12.0, 6.0]
    assert trace.memory.tolist() == [16.0, 12.0]
    assert trace.duration.tolist() == [400.0, 500.0]
    assert trace.kind.tolist() == [0, 3]
    # one was never scheduled, one is larger than any node
    assert trace.skipped == 2


def test_pods_that_request_nothing_need_no_room_and_are_counted_by_schedulers(tmp_path: Path) -> None:
    """A request of 0 is none: it stays 0 for the filter, and scores count 100m and 200 MiB, per resource."""
    path = tmp_path / "silent.csv"
    path.write_text(OWN + "0,LS,0,0,60\n1,LS,2,0,60\n2,LS,0,4,60\n3,LS,1,1,60\n", encoding="utf-8")
    simulator = Simulator(replace(with_trace(path), nodes=1, episode_arrivals=40, warmup_arrivals=0), 1, 5)
    simulator.reset(5, 0.1)
    cpu = cpu_counted = memory = memory_counted = 0.0
    state, kinds = simulator.state, set()
    for _ in range(4):
        demand = simulator.demand
        asked = tuple(float(getattr(demand, name).item()) for name in ("cpu", "memory"))
        counted = tuple(float(getattr(demand, name).item()) for name in ("cpu_nonzero", "memory_nonzero"))
        assert counted == (asked[0] or NONZERO_CPU, asked[1] or NONZERO_MEMORY)
        kinds.add(asked)
        expected = state.cpu_used.item() + EXPECTED_USE_RATIO * counted[0]
        simulator.step(np.array([0]))
        cpu, memory = cpu + asked[0], memory + asked[1]
        cpu_counted, memory_counted = cpu_counted + counted[0], memory_counted + counted[1]
        state = simulator.state
        assert (state.cpu_requested.item(), state.memory_requested.item()) == (cpu, memory)
        assert state.cpu_nonzero.item() == pytest.approx(cpu_counted)
        assert state.memory_nonzero.item() == pytest.approx(memory_counted)
        assert simulator._world.seen.scrapes[0] > 0 or state.cpu_used.item() == pytest.approx(expected)
    assert kinds == {(0.0, 0.0), (2.0, 0.0), (0.0, 4.0), (1.0, 1.0)}
    assert (simulator._world.table.cpu_use > 0.0).all(), "what says nothing still uses something"
    for _ in range(30):
        simulator.step(np.where(simulator.feasible.any(axis=1), 0, -1))
    listed, world = simulator.snapshot(), simulator._world
    assert world.nodes.cpu_silent.sum() == np.count_nonzero(listed.cpu == 0.0), "pods that end are not counted any more"
    assert world.nodes.memory_silent.sum() == np.count_nonzero(listed.memory == 0.0)
    twin = simulator.clone()
    np.testing.assert_array_equal(twin.demand.cpu_nonzero, simulator.demand.cpu_nonzero)
    np.testing.assert_array_equal(twin.state.cpu_nonzero, simulator.state.cpu_nonzero)


def test_long_gaps_are_cut(tmp_path: Path) -> None:
    path = tmp_path / "gaps.csv"
    rows = "".join(f"{second},LS,1,1,60\n" for second in (0, 1, 2, 3, 1000))
    path.write_text(OWN + rows, encoding="utf-8")
    gap = load_trace(with_trace(path, longest_gap=2.0)).gap
    # cut at two mean gaps of 200 s
    assert gap[4] / gap[1] == pytest.approx(400.0)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        pytest.param("a,b\n1,2\n", "columns", id="other columns"),
        pytest.param(OWN, "leaves 0 pods", id="no pods"),
        pytest.param(OWN + "0,gold,1,1,10\n1,gold,1,1,10\n", "leaves 0 pods", id="unknown class"),
        pytest.param(OWN + "0,LS,1,1,10\n1,LS,one,1,10\n", "line 3: cpu", id="not a number"),
        pytest.param(OWN + "0,LS,1,-1,10\n1,LS,1,1,10\n", "line 2: memory", id="negative"),
        pytest.param(OWN + "0,LS,nan,1,10\n1,LS,1,1,10\n", "line 2: cpu", id="nan"),
        pytest.param(OWN + "5,LS,1,1,10\n1,LS,1,1,10\n", "line 3: arrival .* sort", id="falling arrivals"),
        pytest.param(OWN + "0,LS,1,1\n1,LS,1,1,10\n", "line 2: duration", id="short row"),
    ],
)
def test_a_senseless_trace_is_refused_with_the_line_and_the_column(text: str, named: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InvalidInputError, match=named):
        load_trace(with_trace(path))


ROWS = "0,LS,4,16,600\n10,BE,1.5,2,300\n40,LS,2,2,50\n"
BOM = b"\xef\xbb\xbf"

READ = {
    "a byte order mark": BOM + (OWN + ROWS).encode(),
    "a byte order mark before a quoted header": BOM + (OWN.replace("arrival", '"arrival"') + ROWS).encode(),
    "Windows' line ends": (OWN + ROWS).replace("\n", "\r\n").encode(),
    "no line end at the end": (OWN + ROWS).strip().encode(),
    "quoted cells": (OWN + ROWS.replace("LS", '"LS"').replace("600", '"600"')).encode(),
    "blanks around cells": (OWN.replace(",", " , ") + ROWS.replace(",", " , ")).encode(),
    "empty rows and columns of a spreadsheet": (OWN + ROWS + ",,,,\n\n").replace("\n", ",,\n").encode(),
    "other columns beside ours": (OWN + ROWS).replace("\n", ",é\n").encode(),
}


@pytest.mark.parametrize("name", READ)
def test_a_trace_is_read_however_a_spreadsheet_saved_it(name: str, tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    path.write_bytes(READ[name])
    trace = load_trace(with_trace(path))
    assert trace.cpu.tolist() == [4.0, 1.5, 2.0]
    assert trace.kind.tolist() == [0, 3, 0]


REFUSED = {
    "gzip": (gzip.compress((OWN + ROWS).encode()), "compressed with gzip"),
    "bzip2": (bz2.compress((OWN + ROWS).encode()), "compressed with bzip2"),
    "xz": (lzma.compress((OWN + ROWS).encode()), "compressed with xz"),
    "a workbook": (b"PK\x03\x04" + bytes(100), "a zip archive"),
    "UTF-16": ((OWN + ROWS).encode("utf-16"), "UTF-16"),
    "UTF-16 without a mark": ((OWN + ROWS).encode("utf-16-le"), "line 1: has a null byte"),
    "UTF-32": ((OWN + ROWS).encode("utf-32"), "UTF-32"),
    "Latin-1": ((OWN + ROWS.replace("BE", "é")).encode("latin-1"), "line 3: byte 0xe9"),
    "a null byte": ((OWN + ROWS.replace("BE", "\0")).encode(), "line 3: has a null byte"),
    "nothing": (b"", "columns"),
    "a byte order mark alone": (BOM, "columns"),
    "semicolons": ((OWN + ROWS).replace(",", ";").encode(), "separate columns by commas"),
    "tabs": ((OWN + ROWS).replace(",", "\t").encode(), "separate columns by commas"),
    "a decimal comma": ((OWN + ROWS.replace("1.5", "1,5")).encode(), "line 3: has more cells"),
    "a quotation mark that never closes": ((OWN + ROWS.replace("BE", '"BE')).encode(), "line 4: is no CSV"),
    "a cell without an end": ((OWN + "x" * 200_000).encode(), "line 2: is no CSV"),
    "a column twice": ((OWN.strip() + ",cpu\n" + ROWS).encode(), "column cpu twice"),
    "an empty number": ((OWN + ROWS.replace("1.5", "")).encode(), "line 3: cpu is ''"),
    "infinity": ((OWN + ROWS.replace("1.5", "inf")).encode(), "line 3: cpu is 'inf'"),
    "a number of 400 digits": ((OWN + ROWS.replace("1.5", "9" * 400)).encode(), "line 3: cpu"),
    "underscores in a number": ((OWN + ROWS.replace("1.5", "1_5")).encode(), "line 3: cpu is '1_5'"),
    "openb cut off": ((OPENB_HEADER + "b,6000,12288,1,460,,BE,Succeeded,100,700\n").encode(), "line 2: scheduled_time"),
    "openb that says nan": ((OPENB_HEADER + "b,6000,1,1,4,,BE,Ran,100,nan,200\n").encode(), "line 2: deletion_time"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_is_no_such_csv_is_refused_in_one_sentence(name: str, tmp_path: Path) -> None:
    content, named = REFUSED[name]
    path = tmp_path / "other.csv"
    path.write_bytes(content)
    with pytest.raises(InvalidInputError, match=named) as refused:
        load_trace(with_trace(path))
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 600


def test_a_trace_that_is_not_there_is_named() -> None:
    with pytest.raises(InvalidInputError, match=r"nowhere\.csv"):
        Simulator(with_trace("nowhere.csv"), 1, 0)
    for path in (".", "a\0b"):
        with pytest.raises(InvalidInputError, match="cannot be read"):
            load_trace(with_trace(path))


def test_the_sample_is_what_its_command_prints() -> None:
    printed = io.StringIO()
    write(printed)
    assert printed.getvalue() == (FOLDER / "sample.csv").read_text(encoding="utf-8")


def offered(scenario: Scenario, load: float) -> float:
    """Work that arrives over one whole pass of the trace, per second and speed-weighted core."""
    simulator = Simulator(scenario, 4, 1)
    simulator.reset(1, load)
    world = simulator._world
    trace = load_workload(scenario).trace
    assert trace is not None
    pods = min(len(trace), world.table.time.shape[1])
    work = (world.table.cpu_use[:, :pods] * world.table.work[:, :pods]).sum(axis=1)
    capacity = (world.nodes.cores * world.nodes.speed).sum(axis=1)
    return float((work / world.table.time[:, pods - 1] / capacity).mean())


def test_time_is_stretched_until_the_trace_offers_the_stated_load() -> None:
    scenario = load_scenario("trace")
    assert offered(scenario, 0.3) == pytest.approx(0.3, rel=0.1)
    assert offered(scenario, 0.6) == pytest.approx(2 * offered(scenario, 0.3), rel=1e-9)


@pytest.mark.skipif(not OPENB_PODS.is_file(), reason=f"openb is not there; put it in {OPENB} or set OPENB_DIR")
def test_openb_itself_is_loaded_whole_and_runs_at_the_stated_load() -> None:
    scenario = replace(with_trace(OPENB_PODS), episode_arrivals=7000, warmup_arrivals=0)
    trace = load_trace(scenario)
    # 8,152 pods, of which 897 were never scheduled
    assert (len(trace), trace.skipped) == (7255, 897)
    assert np.bincount(trace.kind).tolist() == [4193, 7, 98, 2957]
    assert trace.gap.mean() == pytest.approx(1.0)
    assert offered(scenario, 0.35) == pytest.approx(0.35, rel=0.1)
    simulator = Simulator(replace(scenario, episode_arrivals=300), 2, 0)
    for _ in range(300):
        feasible = simulator.feasible
        simulator.step(np.where(feasible.any(axis=1), feasible.argmax(axis=1), -1))
    counts = simulator.counts()
    assert (counts["finished"] > 100).all()
