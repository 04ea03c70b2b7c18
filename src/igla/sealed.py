"""Sealed folders: written whole or not at all, and checked before they are trusted.

A sealed folder is made under a hidden name beside its place: files first, each synced to the disk,
then `manifest.json` with the SHA-256 sum of every file and of itself, then one atomic rename. Who
finds the folder under its name finds all of it; who opens it learns of every torn, truncated or
flipped byte, those of the manifest included.
"""

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

MANIFEST = "manifest.json"


class BrokenSeal(Exception):
    """A sealed folder whose content is not what was written; the message names file and reason."""


def write_sealed(target: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a new folder, then publish it as `target` by one rename.

    A folder that bears the name already gives way.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    making = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
    making.mkdir()
    try:
        write(making)
        _write_manifest(making)
        _publish(making, target)
    except BaseException:
        shutil.rmtree(making, ignore_errors=True)
        raise


def check_sealed(folder: Path) -> None:
    """Raise BrokenSeal unless every byte of the folder is as it was written."""
    for name, expected in _read_manifest(folder).items():
        _check(folder / name, expected)


def check_sealed_file(file: Path) -> None:
    """Raise BrokenSeal unless a file in a sealed folder is as it was written, whatever the others
    are."""
    _check(file, _read_manifest(file.parent).get(file.name))


def write_durably(path: Path, content: str) -> None:
    """Write a small file by a synced temporary file and one atomic rename."""
    with replaced_durably(path) as making:
        making.write_text(content, encoding="utf-8")


@contextmanager
def replaced_durably(path: Path) -> Iterator[Path]:
    """A temporary file to be written; when the block ends well it is synced and takes the place of
    `path` by one atomic rename, and when it does not, nothing has happened."""
    making = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield making
        with making.open("rb") as file:
            os.fsync(file.fileno())
        making.replace(path)
    except BaseException:
        making.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def remove_unfinished(parent: Path, pattern: str) -> None:
    """Remove what a killed writer of `pattern` left under hidden names; none may be at work."""
    for leftover in parent.glob(f".{pattern}.*"):
        if leftover.is_dir():
            shutil.rmtree(leftover)
        else:
            leftover.unlink()


def file_digest(path: Path) -> str:
    """SHA-256 sum of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check(file: Path, expected: str | None) -> None:
    if not file.is_file():
        raise BrokenSeal(f"{file} is missing")
    if file_digest(file) != expected:
        raise BrokenSeal(f"{file} is damaged (its SHA-256 sum differs from the manifest's)")


def _write_manifest(folder: Path) -> None:
    sums = {}
    # Some libraries make files that nobody else can read; these are as open as their folder.
    mode = folder.stat().st_mode & 0o666
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        file.chmod(mode)
        sums[file.relative_to(folder).as_posix()] = file_digest(file)
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
    write_durably(folder / MANIFEST, _manifest_text(sums))


def _manifest_text(sums: dict[str, str]) -> str:
    own = hashlib.sha256(json.dumps(sums, sort_keys=True).encode()).hexdigest()
    return json.dumps({"files": sums, "sha256": own}, sort_keys=True, indent=1) + "\n"


def _read_manifest(folder: Path) -> dict[str, str]:
    path = folder / MANIFEST
    try:
        text = path.read_text(encoding="utf-8")
        sums: dict[str, str] = json.loads(text)["files"]
    except FileNotFoundError:
        raise BrokenSeal(f"{path} is missing") from None
    except (ValueError, KeyError, TypeError):
        raise BrokenSeal(f"{path} is damaged (not the JSON that was written)") from None
    # One text belongs to one content, so that a changed space is found like a changed sum.
    if text != _manifest_text(sums):
        raise BrokenSeal(f"{path} is damaged (its own SHA-256 sum differs)")
    return sums


def _publish(making: Path, target: Path) -> None:
    former = making.with_name(f"{making.name}.former")
    if target.exists():
        target.rename(former)
    making.rename(target)
    _sync_folder(target.parent)
    shutil.rmtree(former, ignore_errors=True)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
