"""The pages over HTTP: they escape, reveal no secret, change nothing and stay within limits."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import httpx
import pytest

from extender import configuration
from extender.dashboard import rendering, site
from extender.dashboard.listings import charted, listed
from extender.history.explain import summary
from extender.operations.assembly import Assembly
from tests.extender.history.samples import a_decision
from tests.extender.service import Service, by_names, pod

Run = Callable[..., Service]
PAGES = ["", "decisions", "nodes", "policy", "trials", "settings", "metrics", "api"]
FOREIGN = '"><img src=x onerror=alert(1)>{{7*7}}'


class Outline(HTMLParser):
    """Names of the elements, and their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))


def get(service: Service, path: str, **query: str) -> httpx.Response:
    return service.operations.get(f"/dashboard/{path}", params=query)


def test_foreign_text_is_escaped_wherever_it_stands(run_service: Run) -> None:
    service = run_service(scorer="kube-default")
    names = [*service.add_nodes(2), FOREIGN]
    service.change(lambda table: table.upsert_node(FOREIGN, 8.0, 32.0))
    assert service.post("prioritize", by_names(names, pod(FOREIGN, namespace=FOREIGN))).status_code == 200
    uid = f"uid-{FOREIGN}"
    pages = [get(service, page, search=FOREIGN) for page in ("", "decisions", "nodes")]
    path = httpx.URL(service.background.operations_url).copy_with(raw_path=_raw(uid))
    pages.append(service.operations.get(path, params={"node": FOREIGN}))
    for page in pages:
        assert page.status_code == 200, page.text
        assert "<img" not in page.text
        assert {tag for tag, _ in Outline(page.text).elements}.isdisjoint({"img", "iframe", "object"})
        assert not any(name.startswith("on") for _, attributes in Outline(page.text).elements for name in attributes)
        assert "49" not in re.findall(r"onerror=alert\(1\)&gt;(\S{2})", page.text)
    assert sum("&lt;img src=x" in page.text for page in pages) == len(pages) - 1, "all but the first tell of it"


def _raw(uid: str) -> bytes:
    from urllib.parse import quote

    return f"/dashboard/decisions/{quote(uid, safe='')}".encode()


@pytest.mark.parametrize("page", [*PAGES, "decisions/nobody"])
def test_every_answer_lets_nothing_from_elsewhere_in_and_stays_out_of_caches(run_service: Run, page: str) -> None:
    service = run_service()
    service.add_nodes(2)
    answer = get(service, page)
    assert answer.status_code == (404 if "nobody" in page else 200), answer.text
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["cache-control"] == "no-store"
    outline = Outline(answer.text)
    addresses = [
        it
        for _, attributes in outline.elements
        for name in ("src", "href", "action", "hx-get")
        if (it := attributes.get(name))
    ]
    assert addresses
    assert [it for it in addresses if it.startswith(("/", "http", "//", "javascript"))] == [], (
        "relative addresses alone"
    )
    assert not any("style" in attributes for _, attributes in outline.elements), "the policy forbids them"
    assert all(attributes.get("src") for tag, attributes in outline.elements if tag == "script")


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_nothing_can_be_changed(run_service: Run, method: str) -> None:
    service = run_service()
    for page in (*PAGES, "events", "decisions/uid"):
        assert service.operations.request(method, f"/dashboard/{page}").status_code == 405


def test_the_entrance_leads_below_whatever_path_a_proxy_serves_it(run_service: Run) -> None:
    service = run_service()
    for path in ("/", "/dashboard"):
        answer = service.operations.get(path)
        assert (answer.status_code, answer.headers["location"]) == (307, "dashboard/")
    assert (rendering._root("/dashboard/"), rendering._root("/dashboard/nodes")) == ("./", "./")
    assert rendering._root("/dashboard/decisions/uid") == "../"


def test_docs_lead_to_every_endpoint_and_every_property(run_service: Run) -> None:
    service = run_service(scorer="kube-default")
    led = service.operations.get("/docs")
    assert (led.status_code, led.headers["location"]) == (307, "dashboard/api")
    shown = get(service, "api").text
    document = service.operations.get("/openapi.json").json()
    for path in document["paths"]:
        assert f"{path}</code></h2>" in shown
    for schema in document["components"]["schemas"].values():
        for name in schema["properties"]:
            assert f"<code>{name}</code>" in shown
    assert "<td>Report</td>" in shown
    assert "<td>list of Listed</td>" in shown


def test_settings_tell_where_they_come_from_and_no_secret(run_service: Run, tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("deadline_ms: 20\n")
    settings = configuration.load(file, {"MADDPG_BREAKER_FAILURES": "7"}, {"max_nodes": "77"})
    assert settings.origin_of("deadline_ms") == f"file {file}"
    assert settings.origin_of("breaker_failures") == "environment"
    assert settings.origin_of("max_nodes") == "flag"
    assert settings.origin_of("fallback") == "default"
    password = tmp_path / "password"
    password.write_text("hunter2-of-the-file")
    service = run_service(
        usage_source="prometheus",
        prometheus_url="http://127.0.0.1:1",
        prometheus_username="somebody-secret",
        prometheus_password_file=password,
        experiment_salt="salt-secret",
    )
    service.prioritize(service.add_nodes(2))
    for page in PAGES:
        text = get(service, page).text
        assert "somebody-secret" not in text
        assert "salt-secret" not in text
        assert "hunter2" not in text
    assert "set, not shown" in get(service, "settings").text


def test_a_part_is_sent_where_a_part_is_asked_for(run_service: Run) -> None:
    service = run_service()
    service.prioritize(service.add_nodes(3))
    headers = {"HX-Request": "true", "HX-Target": "part"}
    for page in ("", "decisions", "nodes", "decisions/uid-web?node=node-1"):
        part = service.operations.get(f"/dashboard/{page}", headers=headers).text.strip()
        whole = service.operations.get(f"/dashboard/{page}").text
        assert "<h1" not in part
        assert "<form" not in part, "what is being typed stays"
        assert part.splitlines()[0] in whole
        assert part in whole or page == "", "the same as in the whole page"
        target = whole.partition('<div id="part">')[2].strip()
        assert target.startswith(part.splitlines()[0])
    assert "<h1" in service.operations.get("/dashboard/settings", headers=headers).text, "which has no such part"


def test_tables_are_rendered_row_by_row() -> None:
    pages = rendering.Pages(defaultdict(str), "0")
    rows = [listed(summary(a_decision(f"uid-{i}", i))) for i in range(1, 51)]
    values = {"rows": rows, "following": None, "search": "", "remembered": 50, "replicas": None, "silent": None}
    template = pages._environment.get_template("decisions.html")
    pieces = list(template.blocks["part"](template.new_context({**values, "root": "./"})))
    assert "".join(pieces).count("<tr>") == 51
    assert max(map(len, pieces)) < 1000, "a thread can rest after any of them"


def test_no_scorer_is_named_so_that_a_page_fails(run_service: Run) -> None:
    service = run_service()
    for i, name in enumerate(("items", "get", "values")):
        service.background.app.ledger.record(a_decision(f"uid-{i}", i, scorer=name, fallback_reason=name))
    text = get(service, "").text
    assert re.findall(r'<th scope="row">(items|get|values)</th><td class="num">(\d)</td>', text) == [
        ("values", "1"),
        ("get", "1"),
        ("items", "1"),
    ]


def test_charts_have_rate_and_percentiles_of_each_step() -> None:
    told = [(9_099.9, 1.0), *((9_100.0 + i, 0.001 * (i + 1)) for i in range(15)), (9_999.9, 0.2), (10_000.0, 0.3)]
    decisions = [a_decision(at=at, latency_s=latency_s) for at, latency_s in told]
    charts = charted(reversed(decisions), 10_000)
    assert charts["at"] == list(range(9_100, 10_000, 15))
    assert (charts["rate"][0], charts["p50"][0], charts["p99"][0]) == (1.0, 8.0, 14.86)
    assert (charts["rate"][1], charts["p50"][1], charts["p99"][1]) == (0.0, None, None)
    assert (charts["rate"][-1], charts["p50"][-1]) == (1 / 15, 200.0)


def test_a_decision_is_explained_in_one_turn(run_service: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    turns = list[object]()
    of = Assembly.of

    async def counted(self: Assembly, build: Callable[[], object]) -> object:
        turns.append(build)
        return await of(self, build)

    monkeypatch.setattr(Assembly, "of", counted)
    service = run_service()
    service.prioritize(service.add_nodes(3))
    assert "node-2 was number" in get(service, "decisions/uid-web", node="node-2").text
    assert get(service, "decisions/nobody").status_code == 404
    assert len(turns) == 2, "one for each page"


def test_pages_of_the_ranking_cover_every_node_once(run_service: Run) -> None:
    service = run_service()
    names = service.add_nodes(120)
    service.prioritize(names)
    seen = []
    for page in (1, 2, 3):
        text = get(service, "decisions/uid-web", page=str(page)).text
        seen += re.findall(r"\?node=(node-\d+)#why-not", text)
    assert sorted(seen) == sorted(names)
    assert get(service, "decisions/uid-web", page="99").text == get(service, "decisions/uid-web", page="3").text


def test_decisions_are_searched_and_paged(run_service: Run) -> None:
    service = run_service()
    names = service.add_nodes(2)
    for i in range(60):
        service.prioritize(names, pod(f"web-{i}"))
    first = get(service, "decisions").text
    assert first.count('<th scope="row">') == 50
    [older] = re.findall(r'href="([^"]*)" rel="next"', first)
    rest = service.operations.get(
        httpx.URL(f"{service.background.operations_url}/dashboard/decisions").join(older.replace("&amp;", "&"))
    ).text
    assert rest.count('<th scope="row">') == 10
    found = get(service, "decisions", search="WEB-37 waiting").text
    assert re.findall(r">default/(web-\d+)<", found) == ["web-37"]
    assert "No remembered decision matches" in get(service, "decisions", search="nothing-like-this").text


def test_nodes_are_sorted_by_every_column(run_service: Run) -> None:
    service = run_service()
    service.add_nodes(8)
    for sort in ("name", "-name", "cpu", "-speed", "preference", "-used", "nonsense"):
        text = get(service, "nodes", sort=sort).text
        assert text.count('<tr><th scope="row">') == 8
    speeds = [
        float(it) for it in re.findall(r'<td class="num">([\d.]+) <small>', get(service, "nodes", sort="speed").text)
    ]
    assert speeds == sorted(speeds)
    assert speeds[0] < speeds[-1]
    assert "0 of 8 nodes" in get(service, "nodes", search="none-such").text
    assert get(service, "nodes", size="gigantic").status_code == 422


def test_browsers_are_told_of_changes_and_no_more_of_them_than_allowed(
    run_service: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site, "STREAMS", 1)
    service = run_service()
    names = service.add_nodes(2)
    with service.operations.stream("GET", "/dashboard/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        lines = stream.iter_lines()
        assert next(lines) == "retry: 5000"
        refused = httpx.get(f"{service.background.operations_url}/dashboard/events")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "30")
        service.prioritize(names)
        assert next(line for line in lines if line.startswith("event")) == "event: changed"


def test_a_stream_does_not_keep_the_service_from_stopping(run_service: Run) -> None:
    service = run_service(shutdown_grace_s=20.0)
    with service.operations.stream("GET", "/dashboard/events") as stream:
        lines = stream.iter_lines()
        next(lines)
        service.background.stop()
        assert not any("changed" in line for line in lines), "it ends"


def test_static_files_are_those_that_are_named(run_service: Run) -> None:
    service = run_service()
    for name, (body, kind, _) in site._files().items():
        answer = get(service, f"static/{name}")
        assert (answer.content, answer.headers["content-type"].partition(";")[0]) == (body, kind)
        assert "max-age" in answer.headers["cache-control"]
    for name in ("nothing.js", "..%2Fsite.py", "README.md", "%2e%2e%2fcontent.py"):
        assert get(service, f"static/{name}").status_code == 404


def test_vendored_files_are_what_their_table_says() -> None:
    import hashlib

    folder = Path(site.__file__).parent / "static"
    table = re.findall(r"^\| `([^`]+)` \|.*\| `([0-9a-f]{64})` \|$", (folder / "README.md").read_text(), re.MULTILINE)
    assert {name for name, _ in table} == {"htmx.min.js", "uplot.min.js", "uplot.min.css"}
    for name, digest in table:
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
        assert (folder / f"{name.partition('.')[0]}.LICENSE").exists()
