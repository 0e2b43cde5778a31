"""Manifests: which files belong to a checkpoint, with their sizes and SHA-256 sums."""

import hashlib
import json
import os
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sb3_mirl.common.files import write_whole
from sb3_mirl.common.text import printable

FORMAT = "sb3_mirl checkpoint"
FORMAT_VERSION = 4
_COUNTERS = {"serial": int, "n_stored": int, "calls": int}
_FIELDS = {"run": str, "name": str, **_COUNTERS, "files": dict, "replay": dict, "state": dict}
_BLOCK_BYTES = 1 << 20


class DamagedCheckpoint(ValueError):
    """The files of a checkpoint differ from what was written."""


def new_run_id() -> str:
    """An id that all checkpoints of one run have in common."""
    return uuid.uuid4().hex


def write_file(path: Path, content: bytes) -> dict[str, Any]:
    """Write a file atomically, and return its entry for a manifest."""
    write_whole(path, content)
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def check_file(folder: Path, name: str, entry: dict[str, Any]) -> None:
    """Compare a file with its entry in a manifest. Raises DamagedCheckpoint if size or SHA-256 sum differ."""
    try:
        with open(folder / name, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size != entry["bytes"]:
                raise DamagedCheckpoint(f"{name} has {size} bytes instead of {entry['bytes']}")
            digest = hashlib.sha256()
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
    except OSError as error:
        raise DamagedCheckpoint(f"{name} cannot be read: {error.strerror}") from error
    if digest.hexdigest() != entry["sha256"]:
        raise DamagedCheckpoint(f"{name} is not what was written: its SHA-256 sum differs")


def sync_folder(folder: Path) -> None:
    """Make renamed files survive a power failure."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _checksum(manifest: dict[str, Any]) -> str:
    content = {key: value for key, value in manifest.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def write_manifest(path: Path, fields: dict[str, Any]) -> dict[str, Any]:
    """Write a manifest, which completes its checkpoint, and return it."""
    manifest = {"format": FORMAT, "version": FORMAT_VERSION, **fields}
    manifest["sha256"] = _checksum(manifest)
    # Keys are not sorted, because a reference to a shared value must follow the value
    write_file(path, json.dumps(manifest).encode())
    return manifest


def read_manifest(path: Path) -> dict[str, Any]:
    """The content of a manifest. Raises DamagedCheckpoint if it differs from what was written."""
    try:
        manifest = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DamagedCheckpoint(f"{path.name} cannot be read: {error}") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise DamagedCheckpoint(f"{path.name} is not what was written: not a manifest")
    if manifest.get("sha256") != _checksum(manifest):
        raise DamagedCheckpoint(f"{path.name} is not what was written: its SHA-256 sum differs")
    if manifest.get("version") != FORMAT_VERSION:
        raise DamagedCheckpoint(f"{path.name} has version {manifest.get('version')!r}, this package reads {FORMAT_VERSION}")
    if wrong := [key for key, cls in _FIELDS.items() if not isinstance(manifest.get(key), cls)]:
        raise DamagedCheckpoint(f"{path.name} is not what was written: {', '.join(wrong)}")
    if manifest["name"] != path.stem:
        raise DamagedCheckpoint(f"{path.name} is a copy of {manifest['name']}.json")
    return manifest


def find_manifests(folder: Path) -> list[Path]:
    """The manifests in a folder, without those in its subfolders."""
    return sorted(path for path in folder.glob("*_steps.json") if path.is_file())


def is_foreign_model(zip_file: Path) -> bool:
    """Whether a model file belongs to no checkpoint of this package, not even to an unfinished one."""
    return zip_file.exists() and not any(zip_file.with_suffix(suffix).exists() for suffix in (".json", ".safetensors"))


def file_names(paths: Iterable[Path]) -> str:
    """The names of the first five files, for an error message."""
    names = [printable(path.name) for path in paths]
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
