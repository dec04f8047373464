"""Settings from a file, the environment and flags: the only reader of all three.

A value comes from, strongest first: a flag (``--deadline-ms 20``), the environment (``MADDPG_DEADLINE_MS``), the
settings file (YAML or TOML), the default. Tables and lists (``urgency_by_qos``) are JSON in flags and environment. An
empty text means "none" for every setting that may have no value.
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, get_args

import yaml
from pydantic import ValidationError

from extender.errors import SettingsError, kind_of
from extender.mappings import Loader
from extender.settings import SECRETIVE, Settings
from policy.errors import InvalidInputError

ENVIRONMENT_PREFIX: Final = "MADDPG_"
SERVICE_LINK: Final = re.compile(
    r"_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$"
)
"""Variables Kubernetes adds to every pod for each Service of the namespace: one called maddpg-... looks like ours."""


def load(
    file: Path | None = None, environment: Mapping[str, str] | None = None, flags: Mapping[str, str] | None = None
) -> Settings:
    """Settings from file, environment and flags.

    Args:
        file: YAML (``.yaml``, ``.yml``) or TOML (``.toml``) file, or None.
        environment: variables, such as ``os.environ``; only those that begin with `ENVIRONMENT_PREFIX` count.
        flags: setting names (underscores) to values, as text.

    Raises:
        SettingsError: a name is unknown, a value does not fit, or the file does not read.
    """
    origin: dict[str, str] = {}
    values: dict[str, Any] = {}
    for where, part in (
        (f"file {file}", _from_file(file) if file is not None else {}),
        ("environment", _from_environment(environment or {})),
        ("flag", {name: _parsed(name, text, f"flag --{flag_name(name)}") for name, text in (flags or {}).items()}),
    ):
        values.update(part)
        origin.update(dict.fromkeys(part, where))
    try:
        settings = Settings(**values)
    except ValidationError as error:
        raise SettingsError(_explain(error, origin)) from error
    settings.came_from(origin)
    return settings


def flag_name(name: str) -> str:
    """``deadline_ms`` to ``deadline-ms``."""
    return name.replace("_", "-")


def _from_file(file: Path) -> dict[str, Any]:
    if file.suffix not in (".yaml", ".yml", ".toml"):
        raise SettingsError(f"settings file {file}: the name must end in .yaml, .yml or .toml")
    try:
        text = file.read_text(encoding="utf-8")
        document: Any = tomllib.loads(text) if file.suffix == ".toml" else Loader(text).get_single_data()
    except OSError as error:
        raise SettingsError(f"settings file {file}: cannot read it ({kind_of(error)})") from error
    except InvalidInputError as error:
        raise SettingsError(f"settings file {file}: {error}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: also a date that is none
        raise SettingsError(f"settings file {file}: does not parse: {kind_of(error)}") from error
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise SettingsError(
            f"settings file {file}: give a table of settings at the top, not a {type(document).__name__}"
        )
    return {str(name): None if value == "" and _may_be_empty(str(name)) else value for name, value in document.items()}


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    found = {}
    for variable, text in environment.items():
        if not variable.startswith(ENVIRONMENT_PREFIX):
            continue
        name = variable.removeprefix(ENVIRONMENT_PREFIX).lower()
        known = name in Settings.model_fields
        if (not known or text.startswith("tcp://")) and SERVICE_LINK.search(variable):
            continue
        if not known:
            raise SettingsError(f"environment variable {variable} is no setting; {_instead(name)}")
        found[name] = _parsed(name, text, f"environment variable {variable}")
    return found


def _parsed(name: str, text: str, where: str) -> Any:
    """Text to what the field takes: tables and lists are JSON, an empty text is None where None is allowed."""
    field = Settings.model_fields.get(name)
    if field is None:
        raise SettingsError(f"{where} is no setting; {_instead(name)}")
    if text == "" and _may_be_empty(name):
        return None
    if isinstance(field.default, dict | tuple):
        wanted = 'table such as {"name": 0.5}' if isinstance(field.default, dict) else 'list such as ["name"]'
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            raise SettingsError(f"{where}: give a JSON {wanted} ({kind_of(error)})") from error
    return text


def _may_be_empty(name: str) -> bool:
    """Whether a setting takes None, which an empty text stands for wherever the value comes from."""
    field = Settings.model_fields.get(name)
    return field is not None and type(None) in get_args(field.annotation)


def _instead(name: str) -> str:
    """What may have been meant by a name that is no setting."""
    like = difflib.get_close_matches(name, sorted(Settings.model_fields), n=3)
    meant = f"did you mean {' or '.join(like)}? " if like else ""
    return f"{meant}`maddpg-extender reference` lists all"


def _explain(error: ValidationError, origin: Mapping[str, str]) -> str:
    """One line a field: its name, what is wrong, what was found, where it came from."""
    lines = []
    for problem in error.errors(include_url=False):
        path = ".".join(str(part) for part in problem["loc"])
        name = path.split(".", maxsplit=1)[0]
        if problem["type"] == "extra_forbidden":
            lines.append(f"{path} ({origin.get(name, 'default')}) is no setting; {_instead(name)}")
        elif path:
            found = "" if name in SECRETIVE else f"; found {problem['input']!r}"
            lines.append(f"{path} ({origin.get(name, 'default')}): {problem['msg']}{found}")
        else:
            lines.append(problem["msg"])
    return "settings refused: " + "; ".join(lines)
