"""Who the service is: tokens in files, credential plug-ins, certificates; renewed when refused, never left out."""

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from extender.cluster import plugin as plugins
from extender.cluster.answers import ApiError
from extender.cluster.api import ApiServer
from extender.cluster.identity import FILE_CACHE_S, CredentialError, Identity, TokenFile
from extender.cluster.plugin import INFO_VARIABLE, Plugin, PluginOptions
from extender.errors import SourceError
from tests.control_plane.certificates import Authority
from tests.extender.cluster.fake_api import NODES, FakeApi, status

SECRET = "s3cr3t"
V1 = "client.authentication.k8s.io/v1"


class Clock:
    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


# ---- files -----------------------------------------------------------------------------------------------------------


def test_a_token_file_is_read_again_after_a_while_and_when_its_token_is_refused(tmp_path: Path) -> None:
    path, timer = tmp_path / "token", Clock()
    path.write_text("one\n")
    tokens = TokenFile(path, timer=timer)
    first = tokens.identity()
    path.write_bytes(b"\xef\xbb\xbftwo\r\n")
    timer.now += FILE_CACHE_S - 1.0
    assert tokens.identity() is first
    timer.now += 2.0
    assert tokens.identity().authorization == "Bearer two"
    path.write_text("three")
    tokens.refused(first)
    assert tokens.identity().authorization == "Bearer two", "it was not this one that was refused"
    tokens.refused(tokens.identity())
    assert tokens.identity().authorization == "Bearer three"


def test_while_a_token_file_does_not_read_the_last_token_stays(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, timer = tmp_path / "token", Clock()
    path.write_text("one")
    tokens = TokenFile(path, timer=timer)
    tokens.identity()
    path.write_text(f"{SECRET}\n{SECRET}")
    timer.now += FILE_CACHE_S
    assert tokens.identity().authorization == "Bearer one"
    assert "holds more than a token" in caplog.text
    assert SECRET not in caplog.text
    path.write_text("two")
    tokens.refused(tokens.identity())
    assert tokens.identity().authorization == "Bearer two"


def test_a_token_file_that_never_read_is_an_error_and_the_fields_token_counts_meanwhile(tmp_path: Path) -> None:
    with pytest.raises(CredentialError, match="token cannot be read: No such file or directory"):
        TokenFile(tmp_path / "token").identity()
    assert TokenFile(tmp_path / "token", "static").identity().authorization == "Bearer static"
    (tmp_path / "token").write_text("file")
    assert TokenFile(tmp_path / "token", "static").identity().authorization == "Bearer file"


def test_an_identity_shows_nothing_of_itself() -> None:
    assert SECRET not in repr(Identity(f"Bearer {SECRET}", SECRET.encode(), SECRET.encode()))
    assert SECRET not in repr(PluginOptions("p", (SECRET,), {"X": SECRET}))


# ---- plug-ins --------------------------------------------------------------------------------------------------------


def script(folder: Path, text: str, name: str = "get-token") -> str:
    path = folder / name
    path.write_text(f"#!/bin/sh\necho call >> '{folder}/calls'\n{text}")
    path.chmod(0o755)
    return str(path)


def calls(folder: Path) -> int:
    path = folder / "calls"
    return len(path.read_text().splitlines()) if path.exists() else 0


def credential(version: str = V1, **given: Any) -> str:
    return json.dumps({"kind": "ExecCredential", "apiVersion": version, "status": given})


def answering(folder: Path, answer: str) -> str:
    (folder / "answer").write_text(answer)
    return script(folder, f"echo {SECRET} >&2\ncat '{folder}/answer'\n")


@pytest.mark.parametrize("version", plugins.VERSIONS)
def test_a_plug_in_is_asked_once_until_its_credentials_expire(tmp_path: Path, version: str) -> None:
    clock = Clock(1767225600.0)
    command = answering(tmp_path, credential(version, token="one\n", expirationTimestamp="2026-01-01T00:10:00Z"))
    plugin = Plugin(PluginOptions(command, version=version), clock)
    first = plugin.identity()
    assert first.authorization == "Bearer one"
    clock.now += 600.0
    assert plugin.identity() is first
    (tmp_path / "answer").write_text(credential(version, token="two"))
    clock.now += 1.0
    assert plugin.identity().authorization == "Bearer two"
    clock.now += 1e9
    plugin.identity()
    assert calls(tmp_path) == 2, "no time, no expiry"


def test_a_refused_credential_is_replaced_once(tmp_path: Path) -> None:
    plugin = Plugin(PluginOptions(answering(tmp_path, credential(token="one"))))
    first = plugin.identity()
    plugin.refused(first)
    second = plugin.identity()
    plugin.refused(first)
    assert plugin.identity() is second
    assert calls(tmp_path) == 2


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        pytest.param(SECRET, "answered no ExecCredential", id="text"),
        pytest.param("", "answered no ExecCredential", id="nothing"),
        pytest.param("[" * 100_000, "answered no ExecCredential", id="deep"),
        pytest.param(
            credential("client.authentication.k8s.io/v1beta1", token=SECRET), "in another version", id="version"
        ),
        pytest.param(json.dumps({"apiVersion": V1, "kind": SECRET}), "in another version", id="kind"),
        pytest.param(json.dumps({"apiVersion": V1, "kind": "ExecCredential"}), "neither a token nor", id="no-status"),
        pytest.param(credential(token=""), "neither a token nor", id="empty"),
        pytest.param(credential(clientCertificateData="x"), "without its key", id="no-key"),
        pytest.param(credential(token=f"{SECRET}\n{SECRET}"), "more than a token", id="two-lines"),
        pytest.param(credential(token=f"{SECRET}\u2019"), "more than a token", id="typographic"),
        pytest.param(credential(token=7), "answered no ExecCredential", id="number"),
        pytest.param(credential(token="t", expirationTimestamp="soon"), "that is no time", id="expiry"),
        pytest.param("x" * 1_100_000, "more than 1048576 bytes", id="endless"),
    ],
)
def test_what_a_plug_in_answers_is_taken_whole_or_told_by_its_kind(tmp_path: Path, answer: str, why: str) -> None:
    plugin = Plugin(PluginOptions(answering(tmp_path, answer)))
    with pytest.raises(CredentialError, match=f"the credential plug-in get-token .*{why}|{why}") as raised:
        plugin.identity()
    assert SECRET not in str(raised.value)


def test_a_plug_in_that_fails_is_asked_again_but_not_in_a_loop(tmp_path: Path) -> None:
    timer = Clock()
    plugin = Plugin(PluginOptions(script(tmp_path, f"echo {SECRET} >&2\nexit 255\n")), timer=timer)
    for _ in range(3):
        with pytest.raises(CredentialError, match="failed with exit code 255; run it by hand"):
            plugin.identity()
    assert calls(tmp_path) == 1
    timer.now += 1.0
    answering(tmp_path, credential(token="one"))
    assert plugin.identity().authorization == "Bearer one"


def test_a_plug_in_that_hangs_is_given_up_with_what_it_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "TIMEOUT_S", 0.5)
    plugin = Plugin(PluginOptions(script(tmp_path, f"sleep 60 &\necho $! > '{tmp_path}/child'\nwait\n")))
    began = time.monotonic()
    with pytest.raises(CredentialError, match=r"did not end within 0\.5 s"):
        plugin.identity()
    assert time.monotonic() - began < 10.0
    child = Path(f"/proc/{(tmp_path / 'child').read_text().strip()}/stat")
    until = time.monotonic() + 10.0
    while child.exists() and child.read_text().split()[2] != "Z":
        assert time.monotonic() < until, "what it started still runs"
        time.sleep(0.01)


def test_a_plug_in_that_is_not_there_is_told_by_name() -> None:
    with pytest.raises(CredentialError, match="plug-in aws-iam-authenticator cannot be run: No such file or directory"):
        Plugin(PluginOptions("aws-iam-authenticator")).identity()
    with pytest.raises(CredentialError, match="cannot be run: ValueError"):
        Plugin(PluginOptions("sh", ("\0",))).identity()


def test_a_plug_in_is_told_of_the_cluster_and_has_its_variables(tmp_path: Path) -> None:
    command = script(
        tmp_path,
        f"printf '%s' \"${INFO_VARIABLE}\" > '{tmp_path}/info'\necho \"$PROFILE $PATH\" > '{tmp_path}/env'\n"
        f"cat '{tmp_path}/answer'\n",
    )
    (tmp_path / "answer").write_text(credential(token="t"))
    Plugin(PluginOptions(command, environment={"PROFILE": "prod"}, cluster={"server": "https://api"})).identity()
    assert json.loads((tmp_path / "info").read_text()) == {
        "apiVersion": V1,
        "kind": "ExecCredential",
        "spec": {"interactive": False, "cluster": {"server": "https://api"}},
    }
    assert (tmp_path / "env").read_text() == f"prod {os.environ['PATH']}\n"


def test_a_plug_in_runs_once_however_many_wait_for_it(tmp_path: Path) -> None:
    (tmp_path / "answer").write_text(credential(token="t"))
    plugin = Plugin(PluginOptions(script(tmp_path, f"sleep 0.2\ncat '{tmp_path}/answer'\n")))
    found: list[Identity] = []
    threads = [threading.Thread(target=lambda: found.append(plugin.identity())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(found), len(set(map(id, found))), calls(tmp_path)) == (8, 1, 1)


# ---- on requests -----------------------------------------------------------------------------------------------------


def kubeconfig(api: FakeApi, folder: Path, command: str, **more: Any) -> Path:
    asked = {"apiVersion": V1, "command": command, "interactiveMode": "Never"}
    return api.kubeconfig(folder, {"exec": asked, **more})


def test_nothing_is_asked_without_the_credentials_that_a_plug_in_should_give(
    api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugins, "PAUSE_S", 0.0)
    server = ApiServer(kubeconfig(api, tmp_path, answering(tmp_path, credential(token="first"))))
    api.accepted_token = "first"
    server.get(NODES)
    api.accepted_token = "second"
    script(tmp_path, "exit 1\n")
    for complaint in ("answered 401 Unauthorized", "without credentials: .*exit code 1", "exit code 1"):
        with pytest.raises(ApiError, match=complaint):
            server.get(NODES)
    assert api.authorizations == ["Bearer first", "Bearer first"]
    answering(tmp_path, credential(token="second"))
    assert server.get(NODES)
    assert None not in api.authorizations


@pytest.mark.parametrize(
    ("message", "renewed"),
    [
        ('nodes is forbidden: User "system:anonymous" cannot list resource "nodes"', True),
        ('nodes is forbidden: User "viewer" cannot list resource "nodes"', False),
    ],
)
def test_a_403_renews_where_the_server_took_us_for_nobody(
    api: FakeApi, tmp_path: Path, message: str, renewed: bool
) -> None:
    server = ApiServer(kubeconfig(api, tmp_path, answering(tmp_path, credential(token="first"))))
    server.get(NODES)
    once: Iterator[Any] = iter([(403, status(403, "Forbidden", message), {})])
    api.answers[NODES] = lambda: next(once, None)
    with pytest.raises(ApiError, match="answered 403 Forbidden to GET"):
        server.get(NODES)
    server.get(NODES)
    assert calls(tmp_path) == 1 + renewed


def test_impersonation_goes_with_every_request(api: FakeApi, tmp_path: Path) -> None:
    path = api.kubeconfig(tmp_path, {"token": "t", "as": "viewer", "as-groups": ["g", "h"]})
    server = ApiServer(path)
    server.get(NODES)
    server.post("/api/v1/namespaces/x/pods/y/binding", {})
    for headers in api.headers:
        assert headers.get_all("Impersonate-User") == ["viewer"]
        assert headers.get_all("Impersonate-Group") == ["g", "h"]
        assert headers["Authorization"] == "Bearer t"


# ---- certificates ----------------------------------------------------------------------------------------------------


@contextmanager
def over_tls(folder: Path, authority: Authority, clients: Authority | None = None) -> Iterator[FakeApi]:
    api = FakeApi()
    api.certificate = authority.issue("api", "127.0.0.1")
    api.client_authority = None if clients is None else clients.certificate
    with api.running():
        yield api


def tls_config(api: FakeApi, folder: Path, user: dict[str, Any] | None = None, **cluster: Any) -> Path:
    path = api.kubeconfig(folder, user)
    document = json.loads(path.read_text())
    document["clusters"][0]["cluster"] = {"server": f"https://127.0.0.1:{api.port}", **cluster}
    path.write_text(json.dumps(document))
    return path


def test_the_api_server_is_verified_and_an_authority_that_rotates_is_read_again(tmp_path: Path) -> None:
    old, new = Authority(tmp_path, "old"), Authority(tmp_path, "new")
    trusted = tmp_path / "trusted.crt"
    trusted.write_bytes(old.certificate.read_bytes())
    with over_tls(tmp_path, new) as api:
        server = ApiServer(tls_config(api, tmp_path, **{"certificate-authority": "trusted.crt"}))
        with pytest.raises(ApiError, match="certificate verify failed"):
            server.get(NODES)
        trusted.write_bytes(new.certificate.read_bytes())
        with pytest.raises(ApiError, match="certificate verify failed"):
            server.get(NODES)
        assert server.get(NODES)
        server.close()


@pytest.mark.parametrize(
    ("name", "works"), [("api.example", False), ("127.0.0.1", True)], ids=["another-name", "its-name"]
)
def test_the_name_in_the_certificate_may_be_another_than_that_of_the_url(
    tmp_path: Path, name: str, works: bool
) -> None:
    authority = Authority(tmp_path, "ca")
    with over_tls(tmp_path, authority) as api:
        server = ApiServer(
            tls_config(api, tmp_path, **{"certificate-authority": str(authority.certificate), "tls-server-name": name})
        )
        if works:
            assert server.get(NODES)
        else:
            with pytest.raises(ApiError, match="certificate verify failed"):
                server.get(NODES)
        server.close()


def test_whoever_asks_not_to_verify_is_not_stopped(tmp_path: Path) -> None:
    with over_tls(tmp_path, Authority(tmp_path, "ca")) as api:
        server = ApiServer(tls_config(api, tmp_path, **{"insecure-skip-tls-verify": True}))
        assert server.get(NODES)
        server.close()


@pytest.mark.parametrize("by", ["files", "plug-in"])
def test_a_client_certificate_is_shown_and_a_renewed_one_after_it(tmp_path: Path, by: str) -> None:
    authority, clients = Authority(tmp_path, "ca"), Authority(tmp_path, "clients")
    first, second = clients.issue("first"), clients.issue("second")
    cert, key = tmp_path / "client.crt", tmp_path / "client.key"

    def use(pair: Any) -> None:
        cert.write_bytes(pair.certificate.read_bytes())
        key.write_bytes(pair.key.read_bytes())
        answering(tmp_path, credential(clientCertificateData=cert.read_text(), clientKeyData=key.read_text()))

    use(first)
    files = {"client-certificate": "client.crt", "client-key": "client.key"}
    program = {"exec": {"apiVersion": V1, "command": "./get-token", "interactiveMode": "Never"}}
    with over_tls(tmp_path, authority, clients) as api:
        path = tls_config(
            api,
            tmp_path,
            files if by == "files" else program,
            **{"certificate-authority": str(authority.certificate)},
        )
        server = ApiServer(path)
        server.get(NODES)
        use(second)
        server.get(NODES)
        once: Iterator[Any] = iter([(401, status(401, "Unauthorized", "Unauthorized"), {})])
        api.answers[NODES] = lambda: next(once, None)
        with pytest.raises(ApiError, match="401"):
            server.get(NODES)
        server.get(NODES)
        server.close()
        assert api.clients == ["first", "first", "first", "second"]


@pytest.mark.parametrize(
    ("broken", "complaint"),
    [("client.key", "certificate and key cannot be used"), ("ca.crt", "no certificate in PEM")],
)
def test_certificates_that_cannot_be_used_keep_it_from_starting(tmp_path: Path, broken: str, complaint: str) -> None:
    authority = Authority(tmp_path, "ca")
    pair = authority.issue("client")
    for name, source in (("ca.crt", authority.certificate), ("client.crt", pair.certificate), ("client.key", pair.key)):
        (tmp_path / name).write_bytes(b"-----BEGIN NOTHING-----" if name == broken else source.read_bytes())
    user = {"client-certificate": "client.crt", "client-key": "client.key"}
    api = FakeApi()
    api.port = 6443
    path = tls_config(api, tmp_path, user, **{"certificate-authority": "ca.crt"})
    with pytest.raises(SourceError, match=complaint):
        ApiServer(path)


@pytest.fixture
def proxy() -> Iterator[FakeApi]:
    with FakeApi().running() as server:
        yield server


def test_a_proxy_is_asked_with_its_password_which_is_never_shown(tmp_path: Path, proxy: FakeApi) -> None:
    path = proxy.kubeconfig(tmp_path, {"token": "t"})
    document = json.loads(path.read_text())
    document["clusters"][0]["cluster"] = {
        "server": "http://api.invalid:8080",
        "proxy-url": f"http://me:{SECRET}%21@127.0.0.1:{proxy.port}",
    }
    path.write_text(json.dumps(document))
    server = ApiServer(path, environment={"NO_PROXY": "*"})
    server.get(NODES)
    assert proxy.headers[0]["Host"] == "api.invalid:8080"
    assert proxy.headers[0]["Proxy-Authorization"] == "Basic bWU6czNjcjN0IQ=="
    proxy.stop()
    with pytest.raises(ApiError) as raised:
        server.get(NODES)
    assert SECRET not in str(raised.value)


def test_the_environment_names_a_proxy_where_the_kubeconfig_names_none(
    api: FakeApi, tmp_path: Path, proxy: FakeApi
) -> None:
    path = api.kubeconfig(tmp_path)

    def through(environment: dict[str, str]) -> None:
        ApiServer(path, environment=environment).get(NODES)

    through({"HTTP_PROXY": f"http://127.0.0.1:{proxy.port}"})
    assert (len(proxy.headers), len(api.headers)) == (1, 0)
    through({"HTTP_PROXY": f"http://127.0.0.1:{proxy.port}", "NO_PROXY": "127.0.0.0/8"})
    assert (len(proxy.headers), len(api.headers)) == (1, 1)


@pytest.mark.parametrize("proxy", ["socks5://me:s3cr3t@127.0.0.1:1080", "http://:s3cr3t"])
def test_a_proxy_of_the_environment_that_cannot_be_used_is_refused_by_its_variable(
    api: FakeApi, tmp_path: Path, proxy: str
) -> None:
    with pytest.raises(SourceError, match="HTTP_PROXY is no URL of an HTTP or HTTPS proxy") as raised:
        ApiServer(api.kubeconfig(tmp_path), environment={"HTTP_PROXY": proxy})
    assert SECRET not in str(raised.value)
