"""Proxies as golang.org/x/net/http/httpproxy chooses them; most cases are those of its own tests."""

from __future__ import annotations

import pytest

from extender.proxies import is_loopback, proxy_for

PROXY = "http://proxy.example:3128"


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:8888",
        "http://LOCALHOST",
        "http://127.0.0.1:8888",
        "http://127.9.9.9",
        "http://[::1]:8888",
        "http://[::ffff:127.0.0.1]",
        "https://localhost:6443",
    ],
)
def test_no_proxy_is_asked_for_loopback(url: str) -> None:
    environment = dict.fromkeys(("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY"), PROXY)
    assert proxy_for(url, environment) is None


@pytest.mark.parametrize(
    ("url", "environment", "chosen"),
    [
        ("http://a.example", {}, None),
        ("http://a.example", {"HTTP_PROXY": PROXY}, PROXY),
        ("http://a.example", {"http_proxy": PROXY}, PROXY),
        ("http://a.example", {"http_proxy": "proxy.example:3128"}, PROXY),
        ("http://a.example", {"HTTPS_PROXY": PROXY}, None),
        ("https://a.example", {"HTTPS_PROXY": PROXY, "HTTP_PROXY": "http://other"}, PROXY),
        ("http://a.example", {"ALL_PROXY": PROXY}, None),
        ("http://a.example", {"HTTP_PROXY": PROXY, "REQUEST_METHOD": "GET"}, None),
        ("https://a.example", {"HTTPS_PROXY": PROXY, "REQUEST_METHOD": "GET"}, PROXY),
        ("http://192.168.1.1", {"HTTP_PROXY": PROXY}, PROXY),
    ],
)
def test_the_scheme_decides_which_variable_counts(url: str, environment: dict[str, str], chosen: str | None) -> None:
    assert proxy_for(url, environment) == chosen


@pytest.mark.parametrize(
    ("entry", "url", "direct"),
    [
        ("*", "http://a.example", True),
        ("a.example", "http://a.example", True),
        ("example", "http://a.example", True),
        (".example", "http://a.example", True),
        (".a.example", "http://a.example", False),
        ("*.example", "http://a.example", True),
        ("ample", "http://a.example", False),
        ("A.Example ", "http://a.example", True),
        ("b, ,a.example", "http://a.example", True),
        ("a.example:8080", "http://a.example:8080", True),
        ("a.example:8080", "http://a.example", False),
        ("a.example:80", "http://a.example", True),
        ("a.example:443", "https://a.example", True),
        ("10.0.0.0/8", "http://10.1.2.3", True),
        ("10.0.0.0/8", "http://11.1.2.3", False),
        ("10.0.0.0/8", "http://a.example", False),
        ("10.0.0.0/99", "http://10.1.2.3", False),
        ("10.1.2.3", "http://10.1.2.3:9090", True),
        ("10.1.2.3:9090", "http://10.1.2.3:9090", True),
        ("10.1.2.3:80", "http://10.1.2.3:9090", False),
        ("fd00::1", "http://[fd00::1]:9090", True),
        ("[fd00::1]:9090", "http://[fd00::1]:9090", True),
        ("[fd00::1]:80", "http://[fd00::1]:9090", False),
        ("fd00::/8", "http://[fd00::1]", True),
        ("", "http://a.example", False),
        (".", "http://a.example", False),
        (":80", "http://a.example", False),
    ],
)
def test_what_no_proxy_names_is_asked_itself(entry: str, url: str, direct: bool) -> None:
    environment = {"HTTP_PROXY": PROXY, "HTTPS_PROXY": PROXY, "NO_PROXY": entry}
    assert (proxy_for(url, environment) is None) == direct


def test_loopback_is_told_by_what_it_is() -> None:
    assert [is_loopback(each) for each in ("localhost", "::1", "127.1.1.1", "::ffff:127.0.0.1")] == [True] * 4
    assert [is_loopback(each) for each in ("localhost.example", "10.0.0.1", "fd00::1", "")] == [False] * 4
