"""Kubeconfig files: decoded, and merged as client-go merges them (tools/clientcmd/loader.go). Refuses to judge them.

Of two entries with one name, and of two current contexts that are not empty, the first file's wins. Relative paths
belong to the file that they stand in. A key that is no key of kubeconfigs is ignored, as by kubectl, and logged.

Errors name the file and the field, and never what stands in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NoReturn, TypeVar

import msgspec
import structlog
import yaml

from extender.errors import SourceError, kind_of

T = TypeVar("T")

log = structlog.stdlib.get_logger(__name__)


class Variable(msgspec.Struct, frozen=True):
    """A variable of a plug-in."""

    name: str | None = None
    value: str | None = None


class Exec(msgspec.Struct, frozen=True, rename="camel"):
    """A credential plug-in."""

    command: str | None = None
    args: list[str] | None = None
    env: list[Variable] | None = None
    api_version: str | None = None
    install_hint: str | None = None
    provide_cluster_info: bool | None = None
    interactive_mode: str | None = None


class Extension(msgspec.Struct, frozen=True):
    """What others put into a cluster."""

    name: str = ""
    extension: Any = None


class ClusterEntry(msgspec.Struct, frozen=True, rename="kebab"):
    """Where an API server is, and how it proves what it is."""

    server: str | None = None
    tls_server_name: str | None = None
    insecure_skip_tls_verify: bool | None = None
    certificate_authority: str | None = None
    certificate_authority_data: str | None = None
    proxy_url: str | None = None
    # We never ask for a compressed answer, so there is nothing to disable.
    disable_compression: bool | None = None
    extensions: list[Extension] | None = None


class UserEntry(msgspec.Struct, frozen=True, rename="kebab"):
    """Who somebody is to an API server."""

    client_certificate: str | None = None
    client_certificate_data: str | None = None
    client_key: str | None = None
    client_key_data: str | None = None
    token: str | None = None
    token_file: str | None = msgspec.field(default=None, name="tokenFile")
    as_: str | None = msgspec.field(default=None, name="as")
    as_uid: str | None = None
    as_groups: list[str] | None = None
    as_user_extra: dict[str, list[str] | None] | None = None
    username: str | None = None
    password: str | None = None
    auth_provider: Any = None
    exec: Exec | None = None
    extensions: Any = None


class ContextEntry(msgspec.Struct, frozen=True):
    """A user at a cluster."""

    cluster: str | None = None
    user: str | None = None
    namespace: str | None = None
    extensions: Any = None


class NamedCluster(msgspec.Struct, frozen=True):
    """One of `Config.clusters`."""

    name: str
    cluster: ClusterEntry | None = None


class NamedUser(msgspec.Struct, frozen=True):
    """One of `Config.users`."""

    name: str
    user: UserEntry | None = None


class NamedContext(msgspec.Struct, frozen=True):
    """One of `Config.contexts`."""

    name: str
    context: ContextEntry | None = None


class Config(msgspec.Struct, frozen=True, rename="camel"):
    """A whole file."""

    kind: str | None = None
    api_version: str | None = None
    clusters: list[NamedCluster] | None = None
    users: list[NamedUser] | None = None
    contexts: list[NamedContext] | None = None
    current_context: str | None = msgspec.field(default=None, name="current-context")


@dataclass(frozen=True, slots=True)
class KubeconfigFile:
    """One file: its absolute path, what it says, and that undecoded, for the keys that nobody knows."""

    path: Path
    config: Config
    document: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Entry(Generic[T]):
    """One named entry, and where it stands."""

    file: Path
    where: str
    content: T

    def named(self, key: str) -> str:
        """What a field of it is called in messages."""
        return f"kubeconfig {self.file}: {self.where}.{key}"

    def refuse(self, key: str, problem: str) -> NoReturn:
        """Refuse what a field of it says; `problem` must not show that.

        Raises:
            SourceError: always.
        """
        raise SourceError(f"{self.named(key)} {problem}")

    def path(self, text: str) -> Path:
        """A path as it is meant in the file that it stands in."""
        return self.file.parent / Path(text)


def read(path: Path) -> KubeconfigFile:
    """Read one file; an empty one says nothing. Raises `SourceError` if it cannot be read, or is no kubeconfig."""
    try:
        content = path.read_bytes()
        # PyYAML refuses the tabs that JSON may be indented with
        document = yaml.safe_load(content.replace(b"\t", b" ") if content.lstrip().startswith(b"{") else content)
    except OSError as error:
        raise SourceError(f"kubeconfig {path} cannot be read: {kind_of(error)}; set `kubeconfig`") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise SourceError(f"kubeconfig {path} is no YAML: {kind_of(error)}; set `kubeconfig`") from error
    if document is None:
        document = {}
    if not isinstance(document, dict):
        raise SourceError(f"kubeconfig {path} is no mapping of clusters, users and contexts; set `kubeconfig`")
    try:
        config = msgspec.convert(document, Config)
    except msgspec.ValidationError as error:
        raise SourceError(f"kubeconfig {path}: {kind_of(error)}; put texts in quotes") from error
    if config.kind not in (None, "", "Config") or config.api_version not in (None, "", "v1"):
        raise SourceError(f"kubeconfig {path} is no object of apiVersion v1 and kind Config; set `kubeconfig`")
    return KubeconfigFile(path.absolute(), config, document)


def current_context(files: Sequence[KubeconfigFile]) -> str | None:
    """Return the first current context that is not empty; None if there is none."""
    return next((file.config.current_context for file in files if file.config.current_context), None)


def merged(files: Sequence[KubeconfigFile], form: type[T], kind: str) -> dict[str, Entry[T]]:
    """Return the entries of one kind by name; of two with one name, that of the first file.

    Args:
        files: first those that win.
        form: of the entries' content, such as `ClusterEntry`.
        kind: what they are called there: `cluster`, `user` or `context`.

    Raises:
        SourceError: a file has two of one name.
    """
    found: dict[str, Entry[T]] = {}
    for file in files:
        mine: dict[str, Entry[T]] = {}
        for position, named in enumerate(getattr(file.config, f"{kind}s") or ()):
            name = named.name
            if name in mine:
                raise SourceError(f"kubeconfig {file.path}: {kind}s has two entries named {name!r}")
            mine[name] = Entry(file.path, f"{kind}s[{name}].{kind}", getattr(named, kind) or form())
            if name not in found:
                _tell_of_unknown_keys(mine[name], file.document[f"{kind}s"][position].get(kind))
        found = {**mine, **found}
    return found


def _tell_of_unknown_keys(entry: Entry[Any], raw: object) -> None:
    if isinstance(raw, dict):
        known = {field.encode_name for field in msgspec.structs.fields(entry.content)}
        if unknown := sorted(str(key) for key in raw if key not in known):
            log.warning("unknown keys of a kubeconfig are ignored", file=str(entry.file), at=entry.where, keys=unknown)
