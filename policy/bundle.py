"""A policy on disk: load it, validate it, refuse it. Nothing that disagrees with its own manifest is ever served."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from policy.actors import Actors
from policy.criteria import CRITERIA_NAMES
from policy.errors import BundleError
from policy.features import FEATURE_COUNT, FEATURE_NAMES, HIGH, LOW, SCHEMA_VERSION, schema_fingerprint

MODEL_FILE: Final = "actor.onnx"
MANIFEST_FILE: Final = "manifest.json"
MODEL_CARD_FILE: Final = "MODEL_CARD.md"
FORMAT_VERSION: Final = 1
MAX_MODEL_BYTES: Final = 16 * 1024 * 1024
"""A larger file is not one of our actors (280 kB with layers of 256); refuse it before reading it into memory."""

PARITY_ROWS: Final = 64
PARITY_TOLERANCE: Final = 1e-4
"""Largest absolute difference between a recorded bid and the same bid on this machine's ONNX Runtime."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a bundle says of itself.

    Attributes:
        format_version: version of this file's layout.
        name: identifier of the policy, shown on metrics and decisions.
        schema_version: `policy.features.SCHEMA_VERSION` at training.
        schema_sha256: `policy.features.schema_fingerprint` at training.
        features: feature names, in order.
        criteria: criteria names, in order.
        model_sha256: sha256 (hex) of actor.onnx.
        opset: ONNX opset of the model.
        parameters: number of trained parameters of the actor.
        temperature: temperature of the placement softmax in training; priorities are made with it.
        training: provenance: command, configuration, seeds, scenario, versions.
        parity: recorded vectors: ``observations`` [m, 8] and the ``bids`` [m, 4] torch gave for them.
        feature_ranges: smallest and largest value of each feature that training covers, by name; a feature that is
            left out, as in bundles made before this field was, has the bounds of `policy.features.FEATURES`.
    """

    format_version: int
    name: str
    schema_version: int
    schema_sha256: str
    features: list[str]
    criteria: list[str]
    model_sha256: str
    opset: int
    parameters: int
    temperature: float
    training: dict[str, Any]
    parity: dict[str, list[list[float]]]
    feature_ranges: dict[str, list[float]] = field(default_factory=dict)

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
    """A validated policy.

    Attributes:
        path: folder it came from.
        manifest: what it says of itself.
        actors: its model, loaded and proven equal to its recorded vectors.
        manifest_sha256: sha256 (hex) of manifest.json, which names the model by its own: together, this very bundle.
    """

    path: Path
    manifest: Manifest
    actors: Actors
    manifest_sha256: str


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
    raw = _read(path / MANIFEST_FILE, "manifest", MAX_MODEL_BYTES)
    manifest = _manifest(raw)
    model = _read(path / MODEL_FILE, "model", MAX_MODEL_BYTES)
    digest = hashlib.sha256(model).hexdigest()
    if digest != manifest.model_sha256:
        raise BundleError(
            "model_sha256",
            f"the manifest says {manifest.model_sha256} but {MODEL_FILE} has {digest}; copy the bundle again, whole",
        )
    actors = Actors(model, threads)
    _check_finite(actors)
    _check_parity(actors, manifest)
    return Bundle(path, manifest, actors, hashlib.sha256(raw).hexdigest())


def read_manifest(path: Path) -> Manifest:
    """Read and validate `manifest.json` alone; raises `BundleError` as `load_bundle`."""
    return _manifest(_read(path / MANIFEST_FILE, "manifest", MAX_MODEL_BYTES))


def _manifest(raw: bytes) -> Manifest:
    try:
        document = json.loads(raw)
    except ValueError as error:
        raise BundleError("manifest", f"{MANIFEST_FILE} is not JSON ({error}); export the bundle again") from error
    if not isinstance(document, dict):
        raise BundleError("manifest", f"{MANIFEST_FILE} is not a JSON object; export the bundle again")
    manifest = _typed(document)
    _expect("format_version", manifest.format_version, FORMAT_VERSION)
    _expect("schema_version", manifest.schema_version, SCHEMA_VERSION)
    _expect("features", manifest.features, list(FEATURE_NAMES))
    _expect("criteria", manifest.criteria, list(CRITERIA_NAMES))
    _expect("schema_sha256", manifest.schema_sha256, schema_fingerprint())
    if not (manifest.temperature > 0.0 and np.isfinite(manifest.temperature)):
        raise BundleError("temperature", f"{manifest.temperature} is not a positive number; export the bundle again")
    _check_ranges(manifest.feature_ranges)
    return manifest


_TYPES: Final[Mapping[str, type | tuple[type, ...]]] = {
    "format_version": int,
    "name": str,
    "schema_version": int,
    "schema_sha256": str,
    "features": list,
    "criteria": list,
    "model_sha256": str,
    "opset": int,
    "parameters": int,
    "temperature": (int, float),
    "training": dict,
    "parity": dict,
    "feature_ranges": dict,
}


_OPTIONAL: Final = frozenset({"feature_ranges"})


def _typed(document: dict[str, Any]) -> Manifest:
    for name, kind in _TYPES.items():
        if name not in document:
            if name in _OPTIONAL:
                continue
            raise BundleError(name, f"{MANIFEST_FILE} has no such field; export the bundle again")
        if not isinstance(document[name], kind) or isinstance(document[name], bool):
            raise BundleError(name, f"{document[name]!r} is of the wrong type; export the bundle again")
    unknown = sorted(set(document) - set(_TYPES))
    if unknown:
        raise BundleError(unknown[0], f"{MANIFEST_FILE} has a field this version does not know; remove it")
    return Manifest(**document)


def _check_ranges(ranges: dict[str, Any]) -> None:
    """Refuse ranges of features that do not exist, or that are not two finite numbers in order."""
    for name, pair in ranges.items():
        if name not in FEATURE_NAMES:
            raise BundleError("feature_ranges", f"there is no feature {name!r}; known: {', '.join(FEATURE_NAMES)}")
        numbers = isinstance(pair, list) and len(pair) == 2 and all(type(each) in (int, float) for each in pair)
        if not (numbers and np.isfinite(pair).all() and pair[0] < pair[1]):
            raise BundleError("feature_ranges", f"{name} has {pair!r}; give [smallest, largest], both finite")


def _expect(field: str, found: object, wanted: object) -> None:
    if found != wanted:
        raise BundleError(field, f"found {found!r}, this version needs {wanted!r}; retrain or export with this version")


def _read(path: Path, field: str, limit: int) -> bytes:
    try:
        if path.stat().st_size > limit:
            raise BundleError(field, f"{path.name} is larger than {limit} bytes; it is not an actor of ours")
        return path.read_bytes()
    except OSError as error:
        raise BundleError(field, f"cannot read {path} ({error.strerror}); point at a bundle folder") from error


def _check_finite(actors: Actors) -> None:
    """Refuse NaN weights: bids at the corners and the middle of the observation space must be finite and in [-1, 1]."""
    corners = np.array(np.meshgrid(*zip(LOW, HIGH, strict=True))).reshape(FEATURE_COUNT, -1).T
    probes = np.vstack([corners, (LOW + HIGH) / 2]).astype(np.float32)
    bids = actors.bids(probes)
    if not np.isfinite(bids).all():
        raise BundleError("model.weights", "the actor answers NaN or infinity; its weights are broken, export it again")
    if np.abs(bids).max() > 1.0:
        raise BundleError("model.outputs", f"a bid is {np.abs(bids).max()}, outside [-1, 1]; end the actor with tanh")


def _check_parity(actors: Actors, manifest: Manifest) -> None:
    """Refuse a model that does not answer its own recorded observations as it did when it was exported."""
    try:
        observations = np.asarray(manifest.parity["observations"], dtype=np.float32)
        expected = np.asarray(manifest.parity["bids"], dtype=np.float32)
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError("parity", f"recorded vectors do not read ({error}); export the bundle again") from error
    rows = observations.shape[0] if observations.ndim == 2 else 0
    if rows == 0 or observations.shape != (rows, FEATURE_COUNT) or expected.shape != (rows, len(CRITERIA_NAMES)):
        raise BundleError(
            "parity", f"shapes are {observations.shape} and {expected.shape}; need [m, 8] and [m, 4], m > 0"
        )
    difference = float(np.abs(actors.bids(observations) - expected).max())
    if not difference <= PARITY_TOLERANCE:
        raise BundleError(
            "parity",
            f"bids differ by {difference:.2g} from those recorded (limit {PARITY_TOLERANCE}); export again",
        )
