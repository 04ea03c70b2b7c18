"""The versions of a gate: sealed model folders, and a pointer to the one that serves.

A version is a model folder as `igla serve` opens it, with the optimizer's state and `version.json`.
`serving.json` beside them names one: it changes by one rename, under a lock, so that a promotion by
the learner and a rollback by hand cannot both win.
"""

import fcntl
import json
import re
import shutil
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from igla.errors import UserError
from igla.sealed import BrokenSeal, check_sealed, remove_unfinished, write_durably, write_sealed

ABOUT, POINTER = "version.json", "serving.json"
_NAME = re.compile(r"v\d{4,}")


@dataclass(frozen=True)
class About:
    """What is known of a version.

    parent   the version whose copy it was; None: of the first
    lessons  number of the last feedback that it has learned from
    made     seconds since 1970
    passed   whether it was fit to serve; `reason` in words
    figures  what it was judged by (judge.Verdict as JSON), and how it was trained
    """

    parent: str | None
    lessons: int
    made: float
    passed: bool
    reason: str
    figures: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Serving:
    """Which version serves, since when (seconds since 1970), and who has let it: the learner, or
    whose hand it was."""

    name: str
    since: float
    by: str


class Versions:
    """The versions in a gate's folder."""

    def __init__(self, folder: Path):
        self.folder = folder

    def names(self) -> list[str]:
        """All of them, the oldest first, checked or not."""
        paths = [path for path in self.folder.glob("v*") if _NAME.fullmatch(path.name)]
        return sorted((path.name for path in paths if path.is_dir()), key=_number)

    def path(self, name: str) -> Path:
        return self.folder / name

    def about(self, name: str) -> About:
        """What is known of a version; UserError when there is none of this name or it is torn."""
        if not _NAME.fullmatch(name) or not self.path(name).is_dir():
            there = ", ".join(self.names()) or "none"
            raise UserError(f"There is no version {name} in {self.folder}; there are {there}.")
        try:
            content = json.loads((self.path(name) / ABOUT).read_text(encoding="utf-8"))
            return About(**content)
        except (OSError, ValueError, TypeError):
            raise UserError(f"The version {self.path(name)} is damaged ({ABOUT}).") from None

    def known(self) -> dict[str, About]:
        """What is known of each version, the oldest first; those that are torn are left out."""
        found = {}
        for name in self.names():
            with suppress(UserError):
                found[name] = self.about(name)
        return found

    def check(self, name: str) -> Path:
        """The folder of a version of which every byte is whole; UserError for any other."""
        self.about(name)
        try:
            check_sealed(self.path(name))
        except BrokenSeal as broken:
            raise UserError(f"The version {name} is damaged: {broken}.") from None
        return self.path(name)

    def add(self, write: Callable[[Path], None], about: About) -> str:
        """Seal a new version, which `write` fills; its name, the next number."""
        names = self.names()
        name = f"v{_number(names[-1]) + 1 if names else 1:04d}"

        def write_all(folder: Path) -> None:
            write(folder)
            text = json.dumps(asdict(about), ensure_ascii=False, indent=1)
            (folder / ABOUT).write_text(text + "\n", encoding="utf-8")

        write_sealed(self.path(name), write_all)
        return name

    def serving(self) -> Serving:
        """What the pointer says; UserError when there is none."""
        try:
            content = json.loads((self.folder / POINTER).read_text(encoding="utf-8"))
            return Serving(**content)
        except FileNotFoundError:
            raise UserError(f"No version in {self.folder} serves: there is no {POINTER}.") from None
        except (ValueError, TypeError):
            raise UserError(f"{self.folder / POINTER} is damaged.") from None

    def promote(self, name: str, by: str, instead_of: str | None = None) -> bool:
        """Let a whole version serve from now on.

        instead_of  only if that one serves still; False, and nothing changed, when it does not
        """
        self.check(name)
        with self._locked():
            if instead_of is not None and self.serving().name != instead_of:
                return False
            self._point(Serving(name, time.time(), by))
        return True

    def rollback(self, by: str, to: str | None = None) -> str:
        """Let the version that the serving one was made from serve again, or the one named; its
        name. UserError when there is none, or when it is not whole."""
        with self._locked():
            serving = self.serving()
            target = to or self.about(serving.name).parent
            if target is None:
                raise UserError(f"{serving.name} is the first version: there is none before it.")
            self.check(target)
            self._point(Serving(target, time.time(), by))
        return target

    def best(self, figure: Callable[[About], float]) -> str:
        """Of the versions that the serving one descends from, itself too, as far as they are still
        there: the one with the highest figure."""
        name = serving = self.serving().name
        known = self.known()
        found = {}
        while name in known:
            found[name] = figure(known[name])
            name = known[name].parent or ""
        return max(found, key=found.__getitem__, default=serving)

    def prune(self, keep: int, also: Collection[str] = ()) -> list[str]:
        """Remove all but the newest `keep`, the serving one with its parent, and those named; what
        went."""
        serving = self.serving().name
        held = {serving, self.about(serving).parent, *also, *self.names()[-keep:]}
        going = [name for name in self.names() if name not in held]
        for name in going:
            # Under a hidden name first, so that a killed removal leaves no half version.
            doomed = self.folder / f".{name}.removed"
            self.path(name).rename(doomed)
            shutil.rmtree(doomed)
        return going

    def tried(self) -> int:
        """Number of the last feedback that any version, whatever became of it, has learned from."""
        return max((about.lessons for about in self.known().values()), default=0)

    def clean(self) -> None:
        """Remove what a killed process left unfinished; none may be writing."""
        if self.folder.is_dir():
            remove_unfinished(self.folder, "v*")

    def _point(self, serving: Serving) -> None:
        text = json.dumps(asdict(serving), ensure_ascii=False)
        write_durably(self.folder / POINTER, text + "\n")

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _number(name: str) -> int:
    return int(name[1:])
