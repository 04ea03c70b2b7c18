"""What the commands of `igla gate` for its versions do."""

import json
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from igla.errors import UserError
from igla.gate.comparison import compare, stop_comparing
from igla.gate.home import Home
from igla.gate.log import Event, GateLog
from igla.gate.log.command import at_command_line


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


def let_serve(folder: Path, log: str, event: str, version: str | None) -> None:
    """Roll back, or promote a version; a server that runs follows within a second."""
    with closing(GateLog(log)) as opened:
        print(f"{change(_home(folder), opened, event, at_command_line(), version)} serves")


def learn_now(folder: Path) -> None:
    """Ask the learner of a server that runs for a round."""
    _home(folder).asked.touch()
    print("a round begins if there is new feedback and the server runs")


def begin_comparing(folder: Path, version: str | None, share: float) -> None:
    """Begin to compare a version, or stop."""
    home = _home(folder)
    if version is None:
        stop_comparing(home)
        print("nothing is compared")
        return
    begun = compare(home, version, share)
    how = f"answers {share:.0%} of who asks" if share else "only looks on"
    print(f"{begun.second} is compared with {begun.first}; it {how}")


def report(home: Home) -> dict[str, Any]:
    """All versions of a gate, the newest first, and which one serves."""
    kept = home.versions
    found = []
    for name in reversed(kept.names()):
        try:
            found.append({"version": name} | asdict(kept.about(name)))
        except UserError as error:
            found.append({"version": name, "damaged": str(error)})
    return {"serving": asdict(kept.serving()), "versions": found}


def change(home: Home, log: GateLog, event: str, actor: str, version: str | None) -> str:
    """Promote a version or roll back, and have it in the audit trail; the name that serves now."""
    before = home.versions.serving().name
    if event == "promoted":
        assert version is not None
        home.versions.promote(version, actor)
        after = version
    else:
        after = home.versions.rollback(actor, version)
    log.write([Event(event=event, actor=actor, facts={"before": before, "after": after})])
    return after


def _home(folder: Path) -> Home:
    home = Home(folder)
    if not home.begun:
        raise UserError(f"{folder} is no folder of a gate: igla gate serve RUN --learn {folder}")
    return home
