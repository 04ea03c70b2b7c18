"""What the commands of `igla gate` for its versions do."""

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sqlalchemy.exc import DBAPIError

from igla.errors import UserError
from igla.gate import operating
from igla.gate.home import Home, retired_slices
from igla.gate.log import GateLog
from igla.gate.log.actor import at_command_line


def print_versions(folder: Path, *, as_json: bool) -> None:
    """A line a version, the newest first, and why; or all that is known, as JSON."""
    found = report(_home(folder))
    if as_json:
        print(json.dumps(found, ensure_ascii=False, indent=1))
        return
    for one in found["versions"]:
        serves = " serves" if one["version"] == found["serving"]["name"] else ""
        if "damaged" in one:
            print(f"{one['version']}{serves}: {one['damaged']}")
            continue
        area = one["figures"]["holdout"]
        figure = f" PR-AUC {area['after']:.3f}" if area else ""
        print(f"{one['version']}{serves}{figure}: {one['reason']}")


def roll_back(folder: Path, log: str, to: str | None) -> None:
    """Let the former version serve; a server that runs follows within a second."""
    home = _home(folder)
    with _log(log) as opened:
        print(f"{operating.roll_back(home, opened, at_command_line(), to)} serves")


def promote(folder: Path, log: str, version: str) -> None:
    """Let a version serve; a server that runs follows within a second."""
    home = _home(folder)
    with _log(log) as opened:
        print(f"{operating.promote(home, opened, at_command_line(), version)} serves")


def learn_now(folder: Path, log: str) -> None:
    """Ask the learner of a server that runs for a round."""
    home = _home(folder)
    with _log(log) as opened:
        operating.ask_for_a_round(home, opened, at_command_line())
    print("a round begins if there is new feedback and the server runs")


def begin_comparing(folder: Path, log: str, version: str | None, share: float) -> None:
    """Begin to compare a version, or stop."""
    home = _home(folder)
    with _log(log) as opened:
        if version is None:
            operating.stop_comparing(home, opened, at_command_line())
            print("nothing is compared")
            return
        begun = operating.begin_comparing(home, opened, at_command_line(), version, share)
    how = f"answers {share:.0%} of who asks" if share else "only looks on"
    print(f"{begun.second} is compared with {begun.first}; it {how}")


def retire(folder: Path, log: str, name: str, *, undo: bool) -> None:
    """Let older rows and lessons of a slice count no more, or again."""
    from igla.gate import retiring  # which opens the frozen rows, and a rollback needs none

    home = _home(folder)
    with _log(log) as opened:
        if undo:
            retiring.restore(home, opened, at_command_line(), name)
            print(f"what was said of {name} counts again")
            return
        counts = retiring.retire(home, opened, at_command_line(), name)
    told = ", ".join(f"{count:,} rows of the {part}" for part, count in counts.items())
    print(f"what was said of {name} counts no more: {told}")


def report(home: Home) -> dict[str, Any]:
    """All versions of a gate, the newest first, and which one serves."""
    kept = home.versions
    found = []
    for name in reversed(kept.names()):
        try:
            found.append({"version": name} | asdict(kept.about(name)))
        except UserError as error:
            found.append({"version": name, "damaged": str(error)})
    return {
        "serving": asdict(kept.serving()),
        "versions": found,
        "retired": retired_slices(home),
    }


@contextmanager
def _log(url: str) -> Iterator[GateLog]:
    """The server's log. An empty one that is made would only hide that its name is wrong."""
    with closing(GateLog(url, make=False)) as opened:
        try:
            yield opened
        except DBAPIError as error:
            why = str(error.orig).strip()
            raise UserError(
                f"It is done, but the log {opened.database} cannot be written ({why}): the audit "
                "trail does not say so."
            ) from None


def _home(folder: Path) -> Home:
    home = Home(folder)
    if not home.begun:
        raise UserError(f"{folder} is no folder of a gate: igla gate serve RUN --learn {folder}")
    return home
