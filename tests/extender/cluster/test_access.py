"""Kubeconfigs as people have them: what kubectl takes works, or is refused by name; nobody becomes somebody else."""

import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from extender.cluster import access
from extender.cluster.access import Access, find_access, in_cluster
from extender.cluster.plugin import PluginOptions
from extender.errors import SourceError

SECRET = "s3cr3t"
Json = dict[str, Any]


def config(user: Json | None = None, cluster: Json | None = None, **top: Any) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": "https://api:6443", **(cluster or {})}}],
        "users": [{"name": "u", "user": user or {}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
        **top,
    }


def found(folder: Path, document: Any, context: str | None = None) -> Access:
    path = folder / "config"
    path.write_text(document if isinstance(document, str) else yaml.safe_dump(document))
    return find_access(path, context, {})


def encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


EXEC = {"apiVersion": "client.authentication.k8s.io/v1", "command": "aws", "interactiveMode": "Never"}


@pytest.mark.parametrize(
    ("user", "given"),
    [
        ({"token": "t"}, {"token": "t"}),
        ({"token": " t\n"}, {"token": "t"}),
        ({"username": "a", "password": "b"}, {"username": "a", "password": "b"}),
        ({"username": "a"}, {"username": "a", "password": ""}),
        ({"token": None, "username": "", "exec": None}, {}),
        ({"extensions": [{"name": "x"}]}, {}),
        (
            {"client-certificate-data": encoded(b"cert"), "client-key-data": encoded(b"key")},
            {"certificate": b"cert", "key": b"key"},
        ),
        ({"client-certificate-data": "Y2Vy\ndA==", "client-key-data": "a2V5"}, {"certificate": b"cert", "key": b"key"}),
        ({"exec": EXEC}, {"plugin": PluginOptions("aws")}),
        ({"exec": EXEC, "token": "t"}, {"token": "t"}),
    ],
)
def test_who_a_user_is(tmp_path: Path, user: Json, given: Json) -> None:
    assert found(tmp_path, config(user)) == Access("https://api:6443", **given)


@pytest.mark.parametrize(
    ("cluster", "given"),
    [
        ({"server": "https://api:6443/"}, {"server": "https://api:6443"}),
        ({"server": "https://rancher/k8s/clusters/c-1/?x=y#z"}, {"server": "https://rancher/k8s/clusters/c-1"}),
        ({"server": "api:6443"}, {"server": "http://api:6443"}),
        (
            {"server": "api:6443", "certificate-authority-data": encoded(b"ca")},
            {"server": "https://api:6443", "authorities": b"ca"},
        ),
        (
            {"server": "[fd00::1]:6443", "insecure-skip-tls-verify": True},
            {"server": "https://[fd00::1]:6443", "insecure": True},
        ),
        ({"tls-server-name": "kubernetes", "disable-compression": True}, {"server_name": "kubernetes"}),
        ({"proxy-url": "http://me:pw@proxy:3128"}, {"proxy": "http://me:pw@proxy:3128"}),
        ({"extensions": [{"name": "cluster_info", "extension": {"provider": "minikube"}}]}, {}),
    ],
)
def test_where_a_cluster_is(tmp_path: Path, cluster: Json, given: Json) -> None:
    assert found(tmp_path, config(cluster=cluster)) == Access(**{"server": "https://api:6443", **given})


def test_relative_paths_belong_to_the_file_that_they_stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        for name in ("ca", "cert", "key"):
            (tmp_path / folder / name).write_text(f"{name} of {folder}")
    users = {"tokenFile": "token", "client-certificate": "cert", "client-key": "key"}
    (tmp_path / "a" / "config").write_text(yaml.safe_dump({**config(users), "clusters": []}))
    (tmp_path / "b" / "config").write_text(
        yaml.safe_dump({**config(cluster={"certificate-authority": "ca"}), "users": None, "contexts": None})
    )
    paths = {"KUBECONFIG": os.pathsep.join(("a/config", "b/config"))}
    assert find_access(None, None, paths) == Access(
        "https://api:6443",
        authorities=b"ca of b",
        token_file=tmp_path / "a" / "token",
        certificate=b"cert of a",
        key=b"key of a",
    )


def test_a_plug_in_is_a_name_on_the_path_or_beside_its_file(tmp_path: Path) -> None:
    assert found(tmp_path, config({"exec": {**EXEC, "command": "./bin/aws"}})).plugin == PluginOptions(
        str(tmp_path / "bin/aws")
    )
    more = {
        "args": ["eks", "get-token"],
        "env": [{"name": "AWS_PROFILE", "value": "prod"}, {"name": "EMPTY", "value": None}],
        "apiVersion": "client.authentication.k8s.io/v1beta1",
        "installHint": "install it",
        "provideClusterInfo": True,
    }
    extension = {"name": "client.authentication.k8s.io/exec", "extension": {"audience": "x"}}
    cluster = {"certificate-authority-data": encoded(b"ca"), "extensions": [extension], "tls-server-name": "k"}
    asked = {name: value for name, value in {**EXEC, **more}.items() if name != "interactiveMode"}
    assert found(tmp_path, config({"exec": asked}, cluster)).plugin == PluginOptions(
        "aws",
        ("eks", "get-token"),
        {"AWS_PROFILE": "prod", "EMPTY": ""},
        "client.authentication.k8s.io/v1beta1",
        {
            "server": "https://api:6443",
            "tls-server-name": "k",
            "certificate-authority-data": encoded(b"ca"),
            "config": {"audience": "x"},
        },
    )


def test_impersonation_is_sent_with_everything_that_belongs_to_it(tmp_path: Path) -> None:
    user = {
        "token": "t",
        "as": "system:serviceaccount:x:viewer",
        "as-uid": "0f",
        "as-groups": ["g", "h"],
        "as-user-extra": {"scopes": ["view", "edit"], "acme.com/Pro%ject é": ["p"], "none": None},
    }
    assert found(tmp_path, config(user)).impersonation == (
        ("Impersonate-User", "system:serviceaccount:x:viewer"),
        ("Impersonate-Uid", "0f"),
        ("Impersonate-Group", "g"),
        ("Impersonate-Group", "h"),
        ("Impersonate-Extra-acme.com%2FPro%25ject%20%C3%A9", "p"),
        ("Impersonate-Extra-scopes", "view"),
        ("Impersonate-Extra-scopes", "edit"),
    )


def test_nobody_is_somebody_too(tmp_path: Path) -> None:
    """As behind `kubectl proxy`."""
    document = config(users=None, contexts=[{"name": "x", "context": {"cluster": "c"}}])
    assert found(tmp_path, document) == Access("https://api:6443")


@pytest.mark.parametrize(
    ("document", "named"),
    [
        pytest.param(
            config({"auth-provider": {"name": "gcp", "config": {"access-token": SECRET}}}),
            "auth-provider",
            id="auth-provider",
        ),
        pytest.param(
            config({"token": SECRET, "username": "a", "password": "b"}), "token and username", id="two-identities"
        ),
        pytest.param(
            config({"tokenFile": "f", "username": "a", "password": SECRET}), "tokenFile and username", id="two-of-them"
        ),
        pytest.param(config({"token": 12345}), "users[0].user.token", id="token-that-is-a-number"),
        pytest.param(config({"token": f"{SECRET}\n{SECRET}"}), "users[u].user.token", id="token-of-two-lines"),
        pytest.param(config({"client-certificate-data": encoded(b"c")}), "client-key", id="no-key"),
        pytest.param(
            config({"client-certificate": "c", "client-certificate-data": "Yw=="}), "exclude", id="file-and-data"
        ),
        pytest.param(
            config({"client-certificate-data": SECRET + "!", "client-key-data": "Yw=="}), "is no base64", id="base64"
        ),
        pytest.param(config({"client-certificate": "nowhere.crt", "client-key": "k"}), "nowhere.crt", id="no-file"),
        pytest.param(config({"as-groups": ["g"]}), ".as is missing", id="groups-of-nobody"),
        pytest.param(config({"as": f"{SECRET}\u2019"}), "users[u].user.as", id="odd-impersonation"),
        pytest.param(config({"exec": {**EXEC, "interactiveMode": "Always"}}), "exec.interactiveMode", id="terminal"),
        pytest.param(config({"exec": {**EXEC, "interactiveMode": None}}), "exec.interactiveMode", id="no-mode"),
        pytest.param(config({"exec": {**EXEC, "command": ""}}), "exec.command", id="no-command"),
        pytest.param(
            config({"exec": {**EXEC, "apiVersion": "client.authentication.k8s.io/v1alpha1"}}),
            "exec.apiVersion",
            id="old-plug-in",
        ),
        pytest.param(config({"exec": {**EXEC, "env": [{"value": SECRET}]}}), "exec.env", id="nameless-variable"),
        pytest.param(config(cluster={"server": ""}), "clusters[c].cluster.server is missing", id="no-server"),
        pytest.param(
            config(cluster={"server": f"https://me:{SECRET}@api"}), "holds a user or a password", id="password"
        ),
        pytest.param(config(cluster={"server": "unix:///socket"}), "is no URL", id="scheme"),
        pytest.param(config(cluster={"server": "https://api:99999"}), "is no URL", id="port"),
        pytest.param(config(cluster={"proxy-url": f"socks5://me:{SECRET}@proxy"}), "proxy-url", id="socks"),
        pytest.param(
            config(cluster={"insecure-skip-tls-verify": True, "certificate-authority-data": "Yw=="}),
            "contradicts",
            id="insecure",
        ),
        pytest.param(config(cluster={"insecure-skip-tls-verify": "yes"}), "insecure-skip-tls-verify", id="no-boolean"),
        pytest.param(
            config(contexts=[{"name": "x", "context": {"cluster": "c", "user": "v"}}]),
            "there is none; known: u",
            id="no-user",
        ),
        pytest.param(
            config(contexts=[{"name": "x", "context": {"cluster": "d"}}]), "there is none; known: c", id="no-cluster"
        ),
        pytest.param(config(contexts=None), "no context 'x'; known: none", id="no-context"),
        pytest.param(
            {**config(), "current-context": ""}, "no current-context; set `kube_context` to one of: x", id="no-current"
        ),
        pytest.param(
            {**config(), "users": [{"name": "u", "user": {"token": SECRET}}] * 2}, "two entries named 'u'", id="twice"
        ),
        pytest.param({"kind": "Pod", "apiVersion": "v1"}, "kind Config", id="no-config"),
        pytest.param(f"token: {SECRET}\nx: [", "no YAML: ParserError (line 2", id="no-yaml"),
        pytest.param("[1]", "no mapping", id="list"),
        pytest.param("", "no current-context", id="empty"),
        pytest.param("a: &a [*a]\nusers: 7", "kubeconfig", id="users-that-are-a-number"),
    ],
)
def test_what_cannot_work_is_refused_by_name_and_never_shown(tmp_path: Path, document: Any, named: str) -> None:
    with pytest.raises(SourceError) as raised:
        found(tmp_path, document)
    assert named in str(raised.value)
    assert str(tmp_path / "config") in str(raised.value)
    assert SECRET not in str(raised.value)


def test_keys_that_nobody_knows_are_ignored_as_by_kubectl_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert found(tmp_path, config({"token": "t", "tokenfile": SECRET})).token == "t"
    assert "tokenfile" in caplog.text
    assert SECRET not in caplog.text


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_byte_order_mark_is_none_of_our_business(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "config"
    path.write_bytes(json.dumps(config({"token": "t"})).encode(encoding))
    assert find_access(path, None, {}).token == "t"


def test_json_may_be_indented_with_tabs(tmp_path: Path) -> None:
    assert found(tmp_path, json.dumps(config({"token": "t"}), indent="\t")).token == "t"


# ---- KUBECONFIG and what else there may be ---------------------------------------------------------------------------


def written(folder: Path, **files: Json) -> dict[str, str]:
    for name, document in files.items():
        (folder / name).write_text(yaml.safe_dump(document))
    return {"KUBECONFIG": os.pathsep.join(str(folder / name) for name in files)}


def test_of_two_files_the_first_that_says_something_wins(tmp_path: Path) -> None:
    first = config({"token": "first"}, {"server": "https://first"})
    second = config({"token": "second"}, {"server": "https://second"})
    first["current-context"] = ""
    second["contexts"] = [{"name": "y", "context": {"cluster": "c", "user": "u"}}]
    second["current-context"] = "y"
    environment = written(tmp_path, a=first, b=second)
    assert find_access(None, None, environment) == Access("https://first", token="first")
    assert find_access(None, "x", environment) == Access("https://first", token="first")
    with pytest.raises(SourceError, match="there is no context 'z'; known: x, y"):
        find_access(None, "z", environment)


def test_an_entry_of_the_first_file_is_taken_whole(tmp_path: Path) -> None:
    """Entries are not merged field by field: a token never meets another file's impersonation."""
    environment = written(
        tmp_path, a=config({"token": "first"}), b=config({"username": "a", "password": "b", "as": "c"})
    )
    assert find_access(None, None, environment) == Access("https://api:6443", token="first")


def test_missing_and_empty_files_of_a_list_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("")
    environment = written(tmp_path, a=config({"token": "t"}))
    parts = (
        "",
        str(tmp_path / "nowhere"),
        str(tmp_path / "empty"),
        environment["KUBECONFIG"],
        environment["KUBECONFIG"],
    )
    assert find_access(None, None, {"KUBECONFIG": os.pathsep.join(parts)}).token == "t"


def test_a_broken_file_of_a_list_is_refused_although_another_would_do(tmp_path: Path) -> None:
    environment = written(tmp_path, a=config({"token": "t"}))
    (tmp_path / "broken").write_text("{")
    with pytest.raises(SourceError, match="broken is no YAML"):
        find_access(None, None, {"KUBECONFIG": f"{environment['KUBECONFIG']}{os.pathsep}{tmp_path / 'broken'}"})


@pytest.fixture
def pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    folder = tmp_path / "serviceaccount"
    folder.mkdir()
    (folder / "token").write_text("pod")
    (folder / "ca.crt").write_text("authority")
    monkeypatch.setattr(access, "SERVICE_ACCOUNT", folder)
    return {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443", "HOME": str(tmp_path)}


def test_in_a_pod_the_service_account_is_used(tmp_path: Path, pod: dict[str, str]) -> None:
    token = tmp_path / "serviceaccount" / "token"
    inside = Access("https://10.96.0.1:443", authorities=b"authority", token_file=token)
    assert find_access(None, None, pod) == inside
    assert in_cluster({**pod, "KUBERNETES_SERVICE_HOST": "fd00::1"}, token.parent) == Access(
        "https://[fd00::1]:443", authorities=b"authority", token_file=token
    )
    (tmp_path / ".kube").mkdir()
    (tmp_path / ".kube" / "config").write_text(yaml.safe_dump(config({"token": "home"})))
    assert find_access(None, None, pod) == inside
    assert find_access(None, "x", pod).token == "home", "a context is one of a kubeconfig"


def test_a_kubeconfig_that_somebody_names_wins_over_the_service_account(tmp_path: Path, pod: dict[str, str]) -> None:
    named = written(tmp_path, a=config({"token": "named"}))
    assert find_access(None, None, {**pod, **named}).token == "named"
    assert find_access(tmp_path / "a", None, pod).token == "named"
    assert find_access(None, None, {**pod, "KUBECONFIG": str(tmp_path / "nowhere")}).token_file is not None


def test_outside_a_pod_the_users_own_file_is_used(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=f"not in a pod, and there is no {tmp_path}/.kube/config; set `kubeconfig`"):
        find_access(None, None, {"HOME": str(tmp_path)})
    (tmp_path / ".kube").mkdir()
    (tmp_path / ".kube" / "config").write_text(yaml.safe_dump(config({"token": "home"})))
    assert find_access(None, None, {"HOME": str(tmp_path)}).token == "home"
    with pytest.raises(SourceError, match="no file of KUBECONFIG exists"):
        find_access(None, None, {"HOME": str(tmp_path), "KUBECONFIG": "/nowhere/config"})
