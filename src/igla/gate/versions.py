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
from igla.sealed import (
    BrokenSeal,
    check_sealed,
    check_sealed_file,
    remove_unfinished,
    write_durably,
    write_sealed,
)

ABOUT, POINTER = "version.json", "serving.json"
_NAME = re.compile(r"v\d{4,}")


class Torn(UserError):
    """A version that is not as it was sealed."""


class Damaged(UserError):
    """One of the gate's own small files that does not hold what was written, or cannot be read."""


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
        """What is known of a version; UserError when there is none of this name, Torn when what is
        known is not what was written."""
        if not _NAME.fullmatch(name) or not self.path(name).is_dir():
            there = ", ".join(self.names()) or "none"
            raise UserError(f"There is no version {name} in {self.folder}; there are {there}.")
        file = self.path(name) / ABOUT
        try:
            check_sealed_file(file)
            return About(**json.loads(file.read_text(encoding="utf-8")))
        except (BrokenSeal, OSError, ValueError, TypeError) as error:
            raise Torn(f"The version {name} is damaged: {error}.") from None

    def known(self) -> dict[str, About]:
        """What is known of each version, the oldest first; those that are torn are left out."""
        found = {}
        for name in self.names():
            with suppress(UserError):
                found[name] = self.about(name)
        return found

    def check(self, name: str) -> Path:
        """The folder of a version of which every byte is whole; Torn for one that is not, UserError
        where there is none of this name."""
        self.about(name)
        try:
            check_sealed(self.path(name))
        except (BrokenSeal, OSError) as broken:
            raise Torn(f"The version {name} is damaged: {broken}.") from None
        return self.path(name)

    def whole(self, but: str) -> str | None:
        """The newest version that has passed and is whole, other than this one."""
        known = self.known()
        for name in reversed(known):
            if name != but and known[name].passed:
                with suppress(Torn):
                    self.check(name)
                    return name
        return None

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
        """What the pointer says; UserError when there is none, Damaged when it says nothing."""
        pointer = self.folder / POINTER
        if not pointer.exists():
            raise UserError(f"No version in {self.folder} serves: there is no {POINTER}.")
        match read_small(pointer):
            case {"name": str(name), "since": int() | float() as since, "by": str(by)} if (
                _NAME.fullmatch(name)
            ):
                return Serving(name, since, by)
        raise Damaged(
            f"{pointer} is damaged: igla gate promote {self.folder.parent} VERSION writes it anew; "
            f"there are {', '.join(self.names()) or 'none'}."
        )

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
        name. UserError when there is none, or when it is not whole.

        Of the one that serves nothing need be whole where another is named.
        """
        with self._locked():
            target = to or self._former()
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

    def _former(self) -> str:
        """The version that the serving one was made from; UserError where that cannot be known."""
        serving = self.serving().name
        try:
            parent = self.about(serving).parent
        except Torn as torn:
            raise UserError(f"{torn} Name the version that is to serve (--to).") from None
        if parent is None:
            raise UserError(f"{serving} is the first version: there is none before it.")
        return parent

    def _point(self, serving: Serving) -> None:
        text = json.dumps(asdict(serving), ensure_ascii=False)
        write_durably(self.folder / POINTER, text + "\n")

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def read_small(file: Path) -> Any:
    """What a file of JSON holds, None where it is not JSON; Damaged when it cannot be read."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        return None
    except OSError as error:
        raise Damaged(f"{file} cannot be read: {error.strerror}.") from None


def _number(name: str) -> int:
    return int(name[1:])
