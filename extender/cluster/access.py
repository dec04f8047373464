"""One way into one cluster: from a kubeconfig, or from the pod's ServiceAccount. Refuses to connect.

What kubectl takes works here, or is refused by name: nobody's identity is exchanged for another in silence. Refused are
`auth-provider`, a plug-in that needs a terminal, SOCKS proxies, and passwords in the server's URL. The rules are those
of client-go: tools/clientcmd/client_config.go and validation.go, rest/config.go, transport/round_trippers.go.

Errors name the file and the field, and never what stands in it.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlunsplit

from extender.cluster import kubeconfig as kubeconfigs
from extender.cluster.identity import header_text, token_of
from extender.cluster.kubeconfig import ClusterEntry, ContextEntry, Entry, Exec, KubeconfigFile, UserEntry
from extender.cluster.plugin import VERSIONS, PluginOptions
from extender.errors import SourceError, kind_of
from extender.urls import split_url

VARIABLE: Final = "KUBECONFIG"
HOME_FILE: Final = ".kube/config"
SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
EXEC_EXTENSION: Final = "client.authentication.k8s.io/exec"
"""Extension of a cluster whose content a plug-in is told."""


@dataclass(frozen=True, slots=True)
class Access:
    """One way into one cluster. Equal if nothing about it has changed, the contents of its files included."""

    server: str  # base URL of the API server
    authorities: bytes | None = None  # certificates (PEM) that its own is checked against; None: the system's
    insecure: bool = False  # whether its certificate is not checked
    server_name: str | None = None  # name in its certificate, where that is not the URL's
    proxy: str | None = field(default=None, repr=False)  # URL of the proxy in between; None: what the environment says
    # username, password, token: who the service is; None: not by these
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    token_file: Path | None = None  # file with a token, which changes; `token` counts while it cannot be read
    # certificate, key: of the service, in PEM; None: it shows none
    certificate: bytes | None = field(default=None, repr=False)
    key: bytes | None = field(default=None, repr=False)
    plugin: PluginOptions | None = None  # how to get credentials, where nothing else gives them
    impersonation: tuple[tuple[str, str], ...] = ()  # headers that make the service somebody else


def find_access(kubeconfig: Path | None, context: str | None, environment: Mapping[str, str]) -> Access:
    """The way into the cluster that settings and environment choose.

    The setting wins, then the files of KUBECONFIG, then the pod's ServiceAccount, then the user's own file, as
    controller-runtime does it. A context is one of a kubeconfig, so the ServiceAccount is out where one is named.

    Raises:
        SourceError: there is none, or it cannot work; the message names file and field.
    """
    if kubeconfig is not None:
        return _chosen([kubeconfigs.read(kubeconfig)], context)
    named = [Path(name) for name in environment.get(VARIABLE, "").split(os.pathsep) if name]
    present = [path for path in dict.fromkeys(named) if exists(path)]
    if present:
        return _chosen([kubeconfigs.read(path) for path in present], context)
    if context is None and (inside := in_cluster(environment, SERVICE_ACCOUNT)) is not None:
        return inside
    home = Path(environment.get("HOME") or "/") / HOME_FILE
    if not named and exists(home):
        return _chosen([kubeconfigs.read(home)], context)
    where = f"no file of {VARIABLE} exists" if named else f"there is no {home}"
    raise SourceError(f"no way to the cluster: not in a pod, and {where}; set `kubeconfig` to a file")


def in_cluster(environment: Mapping[str, str], folder: Path) -> Access | None:
    """The way that a pod has by its ServiceAccount, which is in `folder`; None outside a pod.

    Raises:
        SourceError: it is a pod, and its authority cannot be read.
    """
    host, port = environment.get("KUBERNETES_SERVICE_HOST"), environment.get("KUBERNETES_SERVICE_PORT")
    token = folder / "token"
    if not host or not port or not exists(token):
        return None
    server = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
    try:
        authorities = (folder / "ca.crt").read_bytes()
    except OSError as error:
        raise SourceError(f"the ServiceAccount's {folder / 'ca.crt'} cannot be read: {kind_of(error)}") from error
    return Access(server=server, authorities=authorities, token_file=token)


def exists(path: Path) -> bool:
    """Whether there is such a file. One that may not be looked at counts: to read it says what is wrong."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError):
        return True
    return True


def _chosen(files: list[KubeconfigFile], context: str | None) -> Access:
    """The access that a context of these files gives; None: the current one."""
    names = ", ".join(str(file.path) for file in files)
    contexts = kubeconfigs.merged(files, ContextEntry, "context")
    chosen = context or kubeconfigs.current_context(files)
    if chosen is None:
        raise SourceError(
            f"kubeconfig {names}: there is no current-context; set `kube_context` to one of: {_listed(contexts)}"
        )
    entry = contexts.get(chosen)
    if entry is None:
        raise SourceError(f"kubeconfig {names}: there is no context {chosen!r}; known: {_listed(contexts)}")
    named, clusters = entry.content, kubeconfigs.merged(files, ClusterEntry, "cluster")
    users = kubeconfigs.merged(files, UserEntry, "user")
    cluster = clusters.get(named.cluster or "")
    if cluster is None:
        entry.refuse("cluster", f"is {named.cluster or ''!r}, and there is none; known: {_listed(clusters)}")
    access = _of_cluster(cluster)
    if not named.user:
        return access  # nobody, as behind `kubectl proxy`
    user = users.get(named.user)
    if user is None:
        entry.refuse("user", f"is {named.user!r}, and there is none; known: {_listed(users)}")
    return _of_user(access, cluster, user)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def _of_cluster(entry: Entry[ClusterEntry]) -> Access:
    """The access to this cluster, by nobody."""
    cluster = entry.content
    authorities = _either(
        entry, "certificate-authority", cluster.certificate_authority, cluster.certificate_authority_data
    )
    insecure = bool(cluster.insecure_skip_tls_verify)
    if insecure and authorities:
        entry.refuse("insecure-skip-tls-verify", "contradicts the certificate-authority; take one of them away")
    if not cluster.server:
        entry.refuse("server", "is missing")
    server = cluster.server
    if "://" not in server:  # as client-go's rest.DefaultServerURL
        server = f"{'https' if insecure or authorities else 'http'}://{server}"
    parts = split_url(server)
    if parts is None:
        entry.refuse("server", "is no URL of HTTP or HTTPS with a host")
    if "@" in parts.netloc:
        entry.refuse("server", "holds a user or a password; give them in the user's entry")
    if cluster.proxy_url and split_url(cluster.proxy_url) is None:
        entry.refuse("proxy-url", "is no URL of an HTTP or HTTPS proxy; SOCKS proxies are not supported")
    return Access(
        server=urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/"), "", "")),
        authorities=authorities,
        insecure=insecure,
        server_name=cluster.tls_server_name or None,
        proxy=cluster.proxy_url or None,
    )


def _of_user(access: Access, cluster: Entry[ClusterEntry], entry: Entry[UserEntry]) -> Access:
    """The access by this user; precedence and refusals as in client-go's validateAuthInfo and exec.go."""
    user = entry.content
    if user.auth_provider is not None:
        entry.refuse("auth-provider", "is not supported; use a plug-in (`exec`), as the clouds' current tools write it")
    by_password = bool(user.username or user.password)
    if by_password and (user.token or user.token_file):
        entry.refuse("token" if user.token else "tokenFile", "and username exclude each other; give one of them")
    certificate = _either(entry, "client-certificate", user.client_certificate, user.client_certificate_data)
    key = _either(entry, "client-key", user.client_key, user.client_key_data)
    if (certificate is None) != (key is None):
        entry.refuse("client-certificate", "and client-key belong together; give both, or none")
    plugin = None if user.exec is None else _plugin(access, cluster, entry, user.exec)
    return replace(
        access,
        username=user.username or "" if by_password else None,
        password=user.password or "" if by_password else None,
        token=token_of(user.token, entry.named("token")) if user.token else None,
        token_file=entry.path(user.token_file) if user.token_file else None,
        certificate=certificate,
        key=key,
        # Whoever gives other credentials means these: exec.go, UpdateTransportConfig.
        plugin=None if by_password or user.token or user.token_file or certificate else plugin,
        impersonation=tuple(_impersonation(entry)),
    )


def _plugin(access: Access, cluster: Entry[ClusterEntry], entry: Entry[UserEntry], asked: Exec) -> PluginOptions:
    """How to run the plug-in."""
    version = asked.api_version or ""
    if not asked.command:
        entry.refuse("exec.command", "is missing")
    if version not in VERSIONS:
        entry.refuse("exec.apiVersion", f"is {version!r}; give {' or '.join(VERSIONS)}")
    if any(not variable.name for variable in asked.env or ()):
        entry.refuse("exec.env", "has a variable without a name")
    mode = asked.interactive_mode or ("IfAvailable" if version == VERSIONS[1] else "")
    if mode == "Always":
        entry.refuse("exec.interactiveMode", "is Always: the plug-in needs a terminal, which a service has not")
    if mode not in ("Never", "IfAvailable"):
        entry.refuse("exec.interactiveMode", f"is {mode!r}; give Never or IfAvailable")
    return PluginOptions(
        # A name is looked up on the PATH; a path is one relative to the file.
        command=str(entry.path(asked.command)) if os.sep in asked.command else asked.command,
        arguments=tuple(asked.args or ()),
        environment={variable.name or "": variable.value or "" for variable in asked.env or ()},
        version=version,
        cluster=_told_of(access, cluster.content) if asked.provide_cluster_info else None,
    )


def _told_of(access: Access, cluster: ClusterEntry) -> dict[str, Any]:
    """What a plug-in is told of the cluster: the fields of client.authentication.k8s.io's Cluster."""
    told = {
        "server": cluster.server,
        "tls-server-name": access.server_name,
        "insecure-skip-tls-verify": access.insecure or None,
        "certificate-authority-data": base64.b64encode(access.authorities).decode() if access.authorities else None,
        "proxy-url": access.proxy,
        "disable-compression": cluster.disable_compression or None,
        "config": next((it.extension for it in cluster.extensions or () if it.name == EXEC_EXTENSION), None),
    }
    return {name: value for name, value in told.items() if value is not None}


def _impersonation(entry: Entry[UserEntry]) -> Iterator[tuple[str, str]]:
    """Headers that make us somebody else, as client-go's transport/round_trippers.go makes them."""
    user, extra = entry.content, entry.content.as_user_extra or {}
    if not user.as_ and (user.as_uid or user.as_groups or extra):
        entry.refuse("as", "is missing: as-uid, as-groups and as-user-extra impersonate nobody without it")
    if user.as_:
        yield "Impersonate-User", header_text(user.as_, entry.named("as"))
    if user.as_uid:
        yield "Impersonate-Uid", header_text(user.as_uid, entry.named("as-uid"))
    for group in user.as_groups or ():
        yield "Impersonate-Group", header_text(group, entry.named("as-groups"))
    for name, texts in sorted(extra.items()):
        for text in texts or ():
            yield f"Impersonate-Extra-{_escaped(name)}", header_text(text, entry.named("as-user-extra"))


def _escaped(name: str) -> str:
    """A key of as-user-extra as a part of a header's name: whatever may not stand there (RFC 9110) is escaped."""
    legal = "!#$&'*+-.^_`|~"  # without the percent sign, which escapes
    return "".join(
        chr(byte) if byte < 128 and (chr(byte).isalnum() or chr(byte) in legal) else f"%{byte:02X}"
        for byte in name.encode()
    )


def _either(entry: Entry[Any], key: str, path: str | None, data: str | None) -> bytes | None:
    """The content of the file that a field names, or of the field `key`-data beside it."""
    if path and data:
        entry.refuse(key, f"and {key}-data exclude each other; give one of them")
    if path:
        try:
            return entry.path(path).read_bytes()
        except (OSError, ValueError) as error:
            entry.refuse(key, f"is {entry.path(path)}, which cannot be read: {kind_of(error)}")
    if not data:
        return None
    try:
        return base64.b64decode("".join(data.split()), validate=True)  # Go's decoder skips line ends, too
    except (binascii.Error, ValueError):
        entry.refuse(f"{key}-data", "is no base64")
