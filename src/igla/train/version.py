"""The versions of a run: sealed folders, of which the newest whole one counts."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

from igla.sealed import BrokenSeal, check_sealed, remove_unfinished, write_sealed
from igla.train.state import TrainState


class Versions:
    """The versions in one folder; one process writes them at a time."""

    def __init__(self, folder: Path):
        self.folder = folder

    def save(self, state: TrainState) -> Path:
        """Publish the state as a version, whole or not at all."""
        micro = f".{state.micro_step:03d}" if state.micro_step else ""
        target = self.folder / f"step-{state.step:06d}{micro}"
        write_sealed(target, state.save)
        return target

    def names(self) -> list[Path]:
        """All versions, the oldest first, checked or not."""
        return sorted(path for path in self.folder.glob("step-*") if _is_version(path))

    def newest(self, refused: Callable[[str], None]) -> Path | None:
        """The newest version whose seal holds; `refused` hears of each that is damaged."""
        for path in reversed(self.names()):
            try:
                check_sealed(path)
            except BrokenSeal as broken:
                refused(f"refused {path.name}: {broken}")
            else:
                return path
        return None

    def at_step(self, step: int) -> Path | None:
        """The whole version of a step, if there is one."""
        path = self.folder / f"step-{step:06d}"
        try:
            check_sealed(path)
        except BrokenSeal:
            return None
        return path

    def prune(self, keep_last: int, best_step: int | None) -> None:
        """Remove all but the newest and the best; what is not a version is left alone."""
        for path in self.names()[:-keep_last]:
            if path.name != f"step-{best_step or 0:06d}":
                # Under a hidden name first, so that a killed removal leaves no half version.
                doomed = path.with_name(f".{path.name}.removed")
                path.rename(doomed)
                shutil.rmtree(doomed)

    def clean(self) -> None:
        """Remove what a killed process left unfinished."""
        if self.folder.is_dir():
            remove_unfinished(self.folder, "step-*")


def _is_version(path: Path) -> bool:
    return path.is_dir() and re.fullmatch(r"step-\d{6,}(\.\d{3})?", path.name) is not None
