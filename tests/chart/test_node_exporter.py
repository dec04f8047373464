"""Use as a real Prometheus stores it: one exporter twice, two clusters in one store, labels that fit nothing."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import yaml

from extender.cluster.prometheus import Prometheus, PrometheusOptions
from extender.cluster.usage import NodeUse, UsageError
from tests.chart.conftest import skip_or_raise
from tests.chart.prometheus import prometheus_binary
from tests.control_plane.processes import Process, answers_ok, free_ports
from tests.control_plane.toolchain import BuildError

GIB = 1 << 30
CORES = 4


@contextmanager
def exporter(busy: float, memory: float) -> Iterator[int]:
    """What of node-exporter counts: so many cores busy since the start, so many of 32 GiB in use; yields its port."""
    began = time.time()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            passed = time.time() - began
            lines = [f"node_memory_MemTotal_bytes {32 * GIB}", f"node_memory_MemAvailable_bytes {(32 - memory) * GIB}"]
            lines.append(f"node_pressure_cpu_waiting_seconds_total {0.25 * passed}")
            for core in range(CORES):
                for mode, share in (
                    ("user", busy / CORES),
                    ("idle", 1.0 - busy / CORES),
                    ("iowait", 0.5),
                    ("steal", 0.5),
                ):
                    lines.append(f'node_cpu_seconds_total{{cpu="{core}",mode="{mode}"}} {share * passed}')
            body = ("\n".join(lines) + "\n").encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def scrape(job: str, port: int, **labels: str) -> dict[str, Any]:
    return {"job_name": job, "static_configs": [{"targets": [f"127.0.0.1:{port}"], "labels": labels}]}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prometheus that has scraped two clusters for some seconds, the exporter of ours by two jobs."""
    try:
        binary = prometheus_binary("prometheus")
    except BuildError as error:
        skip_or_raise(error)
    directory = tmp_path_factory.mktemp("prometheus")
    with exporter(busy=2.0, memory=8.0) as ours, exporter(busy=3.0, memory=24.0) as theirs:
        (port,) = free_ports(1)
        config = {
            "global": {"scrape_interval": "500ms"},
            "scrape_configs": [
                scrape("node-exporter", ours, node="n1", cluster="ours"),
                scrape("kubernetes-service-endpoints", ours, node="n1:9100", cluster="ours", replica="b"),
                scrape("others", theirs, node="n1", cluster="theirs"),
            ],
        }
        (directory / "prometheus.yml").write_text(yaml.safe_dump(config))
        command = [
            str(binary),
            f"--config.file={directory}/prometheus.yml",
            f"--storage.tsdb.path={directory}/data",
            f"--web.listen-address=127.0.0.1:{port}",
        ]
        process = Process("prometheus", command, directory, answers_ok(f"http://127.0.0.1:{port}/-/ready"))
        try:
            process.start()
            process.wait()
            deadline = time.monotonic() + 30.0
            while not known(f"http://127.0.0.1:{port}"):
                assert time.monotonic() < deadline, process.tail()
                time.sleep(0.2)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.stop()


def known(url: str) -> bool:
    """Whether both clusters have been scraped for the whole window: until then, rates are too low."""
    whole = {'cluster="ours"': 1.8, 'cluster="theirs", job="others"': 2.7}
    return all(any(use.cpu > cpu for use in _asked(url, selector)) for selector, cpu in whole.items())


def _asked(url: str, selector: str) -> list[NodeUse]:
    reader = Prometheus(PrometheusOptions(url, window=3.0, selector=selector))
    try:
        return list(reader.read().uses)
    except UsageError:
        return []
    finally:
        reader.close()


@pytest.mark.parametrize(
    ("selector", "cpu", "memory"), [('cluster="ours"', 2.0, 8.0), ('{cluster=~"th.*", job="others"}', 3.0, 24.0)]
)
def test_a_node_counts_once_and_a_selector_chooses_the_cluster(
    url: str, selector: str, cpu: float, memory: float
) -> None:
    (use,) = _asked(url, selector)
    assert use.node == "n1"
    assert use.cpu == pytest.approx(cpu, rel=0.15)
    assert use.memory == pytest.approx(memory)
    assert use.pressure == pytest.approx(0.25, rel=0.15)
    assert 0.0 <= time.time() - use.end < 10.0


def test_a_selector_that_fits_nothing_and_a_label_that_no_series_has_are_told(url: str) -> None:
    with pytest.raises(UsageError, match=r'no series node_memory_MemTotal_bytes with cluster="x"'):
        Prometheus(PrometheusOptions(url, selector='cluster="x"')).read()
    with pytest.raises(UsageError, match=r"has the label 'host' .*; its labels are cluster, instance, job, node"):
        Prometheus(PrometheusOptions(url, node_label="host")).read()
