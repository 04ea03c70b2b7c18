"""The folder of a gate.

origin.json     the run that it began with
rows/           what it is judged by, calibrated on and reminded of; frozen
versions/       sealed versions, and the pointer to the one that serves
learning/       the round at work
status.json     what the learner last said of itself
comparison.json which two versions are compared
retired.json    of which slices older rows and lessons no longer count
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from igla.gate.versions import POINTER, Damaged, Versions, read_small

if TYPE_CHECKING:  # which takes pydantic, and a rollback needs no settings
    from igla.gate.learner_settings import LearnerSettings


@dataclass(frozen=True)
class Home:
    """The folder of a gate."""

    folder: Path

    @property
    def versions(self) -> Versions:
        return Versions(self.folder / "versions")

    @property
    def origin(self) -> Path:
        return self.folder / "origin.json"

    @property
    def rows(self) -> Path:
        return self.folder / "rows"

    @property
    def learning(self) -> Path:
        return self.folder / "learning"

    @property
    def status(self) -> Path:
        return self.folder / "status.json"

    @property
    def asked(self) -> Path:
        """Is there when somebody wants a round to begin."""
        return self.folder / "asked"

    @property
    def comparison(self) -> Path:
        return self.folder / "comparison.json"

    @property
    def retired(self) -> Path:
        return self.folder / "retired.json"

    @property
    def begun(self) -> bool:
        return (self.folder / "versions" / POINTER).is_file()


@dataclass(frozen=True)
class Origin:
    """What a gate began with.

    run    its folder, as it was named then
    model  the version that `igla serve` names of its model
    """

    run: str
    model: str


def origin(home: Home) -> Origin | None:
    """What a gate began with; None of one that an older igla began, which did not note it."""
    if not home.origin.exists():
        return None
    match read_small(home.origin):
        case {"run": str(run), "model": str(model)}:
            return Origin(run, model)
    raise Damaged(
        f"{home.origin} is damaged: remove it, and whatever model the gate is served with next is "
        "taken to be the one that it began with."
    )


def told(
    home: Home,
    log: str,
    model: str,
    block: int,
    settings: "LearnerSettings",
    *,
    guarded: bool = False,
) -> str:
    """The line that a learner is told at its start.

    model    name of the one that learns
    guarded  whether the server reads texts by text.guard as well
    """
    content = {"folder": str(home.folder), "log": log, "model": model, "block": block}
    content |= {"guarded": guarded, "settings": settings.model_dump(mode="json")}
    return json.dumps(content) + "\n"


def retired_slices(home: Home) -> dict[str, float]:
    """Slice → seconds since 1970 at which what was said of it was retired."""
    if not home.retired.exists():
        return {}
    found = read_small(home.retired)
    if isinstance(found, dict) and all(isinstance(one, int | float) for one in found.values()):
        return found
    raise Damaged(
        f"{home.retired} is damaged: remove it, and retire again what the audit trail says was "
        "retired (igla gate retire)."
    )
