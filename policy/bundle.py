"""A policy on disk: load it, validate it, refuse it. Nothing that disagrees with its own manifest is ever served."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from dataclasses import MISSING, asdict, dataclass, field, fields
from importlib import resources
from math import inf
from pathlib import Path
from typing import Any, Final, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray

from policy.actors import Actors
from policy.criteria import CLASSIC, CRITERIA_SETS, CriteriaSet, set_of
from policy.errors import BundleError
from policy.features import FEATURE_NAMES, HIGH, LOW, SCHEMA_VERSION, schema_fingerprint
from policy.model import check_answers, check_contents, check_parity, number, short
from policy.scorers import ActorScorer

MODEL_FILE: Final = "actor.onnx"
MANIFEST_FILE: Final = "manifest.json"
MODEL_CARD_FILE: Final = "MODEL_CARD.md"
FORMAT_VERSION: Final = 1
MAX_MODEL_BYTES: Final = 16 * 1024 * 1024
"""A larger file is not one of our actors (280 kB with layers of 256); refuse it before reading it into memory."""

MAX_MANIFEST_BYTES: Final = 4 * 1024 * 1024
"""A larger file is no manifest of ours (35 kB)."""
LONGEST_NAME: Final = 128

PARITY_ROWS: Final = 64
LARGEST_TEMPERATURE: Final = 1e6
"""At its reciprocal every node but the best has priority 0, at this all are alike: no training needs more of either."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a bundle says of itself."""

    format_version: int  # version of this file's layout
    name: str  # identifier of the policy, shown on metrics and decisions
    schema_version: int  # `policy.features.SCHEMA_VERSION` at training
    schema_sha256: str  # `policy.features.schema_fingerprint` at training
    features: list[str]  # feature names, in order
    criteria: list[str]  # criteria names, in order: one of `policy.criteria.CRITERIA_SETS`
    model_sha256: str  # sha256 (hex) of actor.onnx
    opset: int
    parameters: int  # number of trained parameters of the actor
    temperature: float  # temperature of the placement softmax in training; priorities are made with it
    training: dict[str, Any]  # provenance: command, configuration, seeds, scenario, versions
    # recorded vectors: ``observations`` [m, 8] and the ``bids`` [m, 4] torch gave for them
    parity: dict[str, list[list[float]]]
    # smallest and largest value of each feature that training covers, by name; a feature that is left out, as in
    # bundles made before this field was, has the bounds of `policy.features.FEATURES`
    feature_ranges: dict[str, list[float]] = field(default_factory=dict)

    @property
    def criteria_set(self) -> CriteriaSet:
        """The criteria that the actor bids on."""
        return set_of(self.criteria) or CLASSIC  # a manifest that names none is refused when it is read

    def training_range(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Smallest and largest value of each feature that training covers, ``[8]`` each."""
        low, high = LOW.copy(), HIGH.copy()
        for name, (least, most) in self.feature_ranges.items():
            column = FEATURE_NAMES.index(name)
            low[column], high[column] = least, most
        return low, high

    def to_json(self) -> str:
        """The manifest as it stands on disk."""
        return json.dumps(asdict(self), indent=1, sort_keys=True) + "\n"


@dataclass(frozen=True, slots=True)
class Bundle:
    """A validated policy."""

    path: Path  # folder it came from
    manifest: Manifest  # what it says of itself
    actors: Actors  # its model, loaded and proven equal to its recorded vectors
    manifest_sha256: str  # sha256 (hex) of manifest.json, which names the model by its own: together, this very bundle

    def scorer(self, name: str | None = None) -> ActorScorer:
        """The policy as what rates nodes; called as its manifest says, or otherwise."""
        return ActorScorer(self.actors, name or self.manifest.name, self.manifest.criteria_set)


def shipped_bundle_path() -> Path:
    """Folder of the policy that ships with this package."""
    return Path(str(resources.files("policy"))) / "models" / "default"


def load_bundle(path: Path, threads: int = 1) -> Bundle:
    """Read and validate a policy bundle.

    Args:
        path: folder with `actor.onnx` and `manifest.json`.
        threads: ONNX Runtime intra-op threads.

    Raises:
        BundleError: anything is missing or disagrees; `field` names it.
    """
    raw = read_file(path / MANIFEST_FILE, "manifest", MAX_MANIFEST_BYTES)
    manifest = _manifest(raw)
    model = read_file(path / MODEL_FILE, "model", MAX_MODEL_BYTES)
    digest = hashlib.sha256(model).hexdigest()
    if digest != manifest.model_sha256:
        raise BundleError(
            "model_sha256",
            f"the manifest says {short(manifest.model_sha256)} but {MODEL_FILE} has {digest}; copy the bundle again, "
            "whole",
        )
    check_contents(model, manifest.opset)
    actors = Actors(model, threads)
    check_answers(actors)
    check_parity(actors, manifest.parity)
    return Bundle(path, manifest, actors, hashlib.sha256(raw).hexdigest())


def read_manifest(path: Path) -> Manifest:
    """Read and validate `manifest.json` alone; raises `BundleError` as `load_bundle`."""
    return _manifest(read_file(path / MANIFEST_FILE, "manifest", MAX_MANIFEST_BYTES))


def read_file(path: Path, field: str, limit: int) -> bytes:
    """Return the bytes of a regular file, links followed.

    Raises:
        BundleError: `field`, if there is no such file, it is none that can be read to its end, or it is too large.
    """
    try:
        # without waiting: to open a pipe blocks until somebody writes
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise BundleError(field, f"{path} is no regular file; point at a bundle folder")
            content = file.read(limit + 1)
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        reason = (isinstance(error, OSError) and error.strerror) or type(error).__name__
        raise BundleError(field, f"cannot read {str(path)!a:.300} ({reason}); point at a bundle folder") from error
    if len(content) > limit:
        raise BundleError(field, f"{path.name} is larger than {limit} bytes; it is not an actor of ours")
    return content


def _manifest(raw: bytes) -> Manifest:
    try:
        document = json.loads(raw.decode("utf-8-sig"), object_pairs_hook=_each_once)
    except UnicodeDecodeError as error:
        raise BundleError(
            "manifest", f"byte {error.start} of {MANIFEST_FILE} is not UTF-8; export the bundle again"
        ) from error
    except json.JSONDecodeError as error:
        raise BundleError(
            "manifest",
            f"{MANIFEST_FILE} is not JSON ({error.msg} in line {error.lineno}, column {error.colno}); "
            "export the bundle again",
        ) from error
    except RecursionError as error:
        raise BundleError("manifest", f"{MANIFEST_FILE} is nested too deep; export the bundle again") from error
    except ValueError as error:  # an integer of thousands of digits
        raise BundleError(
            "manifest", f"{MANIFEST_FILE} has a number that does not read; export the bundle again"
        ) from error
    if not isinstance(document, dict):
        raise BundleError("manifest", f"{MANIFEST_FILE} is not a JSON object; export the bundle again")
    manifest = _typed(document)
    _expect("format_version", manifest.format_version, FORMAT_VERSION)
    _expect("schema_version", manifest.schema_version, SCHEMA_VERSION)
    _expect("features", manifest.features, list(FEATURE_NAMES))
    if set_of(manifest.criteria) is None:
        known = " or ".join(repr(list(each.names)) for each in CRITERIA_SETS.values())
        raise BundleError(
            "criteria", f"found {short(manifest.criteria)}, this version needs {known}; retrain with this version"
        )
    _expect("schema_sha256", manifest.schema_sha256, schema_fingerprint())
    return manifest


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; of a key that stands twice, readers disagree which one counts."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise BundleError("manifest", f"{MANIFEST_FILE} has the key {short(name)} twice; export the bundle again")
        found[name] = value
    return found


def _typed(document: dict[str, Any]) -> Manifest:
    """Refuse fields that are missing, unknown, out of range, or of another type than `Manifest` declares."""
    types = get_type_hints(Manifest)
    for item in fields(Manifest):
        name, kind = item.name, get_origin(types[item.name]) or types[item.name]
        if name not in document:
            if item.default_factory is not MISSING:
                continue
            raise BundleError(name, f"{MANIFEST_FILE} has no such field; export the bundle again")
        if not isinstance(document[name], (int, float) if kind is float else kind) or isinstance(document[name], bool):
            raise BundleError(name, f"{short(document[name])} is of the wrong type; export the bundle again")
    for name in document:
        if name not in types:
            shown = name if name.isidentifier() and len(name) <= LONGEST_NAME else "manifest"
            raise BundleError(
                shown, f"{MANIFEST_FILE} has a field {short(name)} that this version does not know; remove it"
            )
    name = document["name"]
    if not (0 < len(name) <= LONGEST_NAME and name.isprintable()):
        raise BundleError("name", f"{short(name)} is none; give 1 to {LONGEST_NAME} printable characters")
    for count in ("opset", "parameters"):
        if not 0 <= document[count] <= MAX_MODEL_BYTES:
            raise BundleError(count, f"{short(document[count])} is no such number; export the bundle again")
    temperature = number(document["temperature"])
    if not 1.0 / LARGEST_TEMPERATURE <= temperature <= LARGEST_TEMPERATURE:
        raise BundleError(
            "temperature",
            f"{short(document['temperature'])} is no number from {1.0 / LARGEST_TEMPERATURE:g} to "
            f"{LARGEST_TEMPERATURE:g}; export the bundle again",
        )
    ranges = {name: _range(name, pair) for name, pair in document.get("feature_ranges", {}).items()}
    return Manifest(**{**document, "temperature": temperature, "feature_ranges": ranges})


def _range(name: str, pair: Any) -> list[float]:
    """Smallest and largest value of a feature."""
    if name not in FEATURE_NAMES:
        raise BundleError("feature_ranges", f"there is no feature {short(name)}; known: {', '.join(FEATURE_NAMES)}")
    low, high = (number(each) for each in pair) if isinstance(pair, list) and len(pair) == 2 else (inf, inf)
    if not low < high < inf:
        raise BundleError("feature_ranges", f"{name} has {short(pair)}; give [smallest, largest], both finite")
    return [low, high]


def _expect(field: str, found: object, wanted: object) -> None:
    if found != wanted:
        raise BundleError(
            field, f"found {short(found)}, this version needs {wanted!r}; retrain or export with this version"
        )
