"""Who may ask: keys of which only hashes are kept, what each is for, and how often it may be used.

A keys file is JSON, one object a key. It is read again when it has changed, so that adding and
revoking take effect at once.
"""

import contextlib
import fcntl
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from igla.errors import UserError, first_fault
from igla.sealed import write_durably

Scope = Literal["score", "feedback", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
_PREFIX = "igla_"


class Key(BaseModel):
    """A key as it is kept.

    digest      SHA-256 of the key, which is 256 random bits: guessing it needs no slower hash
    per_minute  requests that may be made with it; None: as many as one likes
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str
    digest: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    scopes: tuple[Scope, ...]
    per_minute: Annotated[int, Field(ge=1)] | None = None


_FILE = TypeAdapter(list[Key])


def read_keys(path: Path) -> list[Key]:
    """The keys of a file; none when there is no such file."""
    try:
        return _FILE.validate_json(path.read_bytes())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from None
    except ValidationError as error:
        raise UserError(f"{path} is no file of keys: {first_fault(error)}.") from None


def add_key(path: Path, name: str, scopes: tuple[Scope, ...], per_minute: int | None) -> str:
    """Make a key; it is returned this once and kept nowhere."""
    if not 1 <= len(name) <= 100 or not name.isprintable():
        raise UserError("A key's name has 1 to 100 characters that can be printed.")
    key = _PREFIX + secrets.token_urlsafe(32)
    with _changing(path) as keys:
        if any(one.name == name for one in keys):
            raise UserError(f"There is a key named {name} already: revoke it, or choose another.")
        keys.append(Key(name=name, digest=_digest(key), scopes=scopes, per_minute=per_minute))
    return key


def revoke_key(path: Path, name: str) -> None:
    """Take a key away."""
    with _changing(path) as keys:
        left = [one for one in keys if one.name != name]
        if len(left) == len(keys):
            raise UserError(f"There is no key named {name} in {path}.")
        keys[:] = left


@contextmanager
def _changing(path: Path) -> Iterator[list[Key]]:
    """The keys, written back when the block ends well; one process at a time."""
    if not path.parent.is_dir():
        raise UserError(f"There is no folder {path.parent} for {path.name}; make it first.")
    with path.with_name(f".{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        keys = read_keys(path)
        yield keys
        content = [one.model_dump(mode="json") for one in keys]
        write_durably(path, json.dumps(content, ensure_ascii=False, indent=1) + "\n")
        path.chmod(0o600)


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


@dataclass
class _Bucket:
    """Requests that may be made now, and when that was so."""

    left: float
    at: float


class Denied(Exception):
    """A request without a fitting key.

    status  401: no key, or one that nobody has; 403: not for this; 429: too often
    wait    seconds after which it may be tried again
    """

    def __init__(self, status: int, message: str, wait: float | None = None):
        super().__init__(message)
        self.status = status
        self.message = message
        self.wait = wait


class Doorkeeper:
    """Checks keys against a file.

    clock  seconds, for tests
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic):
        self._path = path
        self._clock = clock
        self._changed: float | None = None
        self._keys: list[Key] = []
        self._buckets: dict[str, _Bucket] = {}
        self._read()

    def check(self, key: str | None, scope: Scope) -> Key:
        """The key that was given; Denied when it may not do this, or not now."""
        # A file that is being replaced, or was broken by hand, takes nobody's key away.
        with contextlib.suppress(UserError):
            self._read()
        if key is None:
            raise Denied(401, "A key is needed: as Authorization: Bearer, x-api-key, or ?key=.")
        digest, found = _digest(key), None
        for one in self._keys:  # all of them, so that the time tells nothing
            if hmac.compare_digest(one.digest, digest):
                found = one
        if found is None:
            raise Denied(401, "The key is not known here.")
        if scope not in found.scopes:
            raise Denied(403, f"The key {found.name} is not for {scope}.")
        if found.per_minute is not None:
            self._spend(found, found.per_minute)
        return found

    def _spend(self, key: Key, per_minute: int) -> None:
        now = self._clock()
        bucket = self._buckets.setdefault(key.digest, _Bucket(per_minute, now))
        rate = per_minute / 60
        bucket.left = min(per_minute, bucket.left + (now - bucket.at) * rate)
        bucket.at = now
        if bucket.left < 1:
            wait = (1 - bucket.left) / rate
            raise Denied(429, f"The key {key.name} has {per_minute} requests a minute.", wait)
        bucket.left -= 1

    def _read(self) -> None:
        try:
            changed = self._path.stat().st_mtime_ns
        except FileNotFoundError:
            raise UserError(f"There is no file of keys {self._path}: igla keys add NAME") from None
        except OSError as error:
            raise UserError(f"{self._path} cannot be read: {error.strerror}.") from None
        if changed != self._changed:
            self._keys, self._changed = read_keys(self._path), changed
