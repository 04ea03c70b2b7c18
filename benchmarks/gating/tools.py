"""A generated stream of agents' tool calls, and two policies of allowing and blocking them."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

PLACES = "shop billing letters reports backup users stock images search mail".split()
PEOPLE = "anna boris vera gleb daria egor zoya ivan kira lev".split()
FILES = "config.yaml index.html notes.txt rows.csv main.py keys.env report.md data.json".split()
HOSTS = "docs.python.org pypi.example api.weather.example files.example cdn.example".split()
TABLES = "orders clients payments visits goods prices".split()


@dataclass(frozen=True)
class Call:
    """A call of a tool, as an agent asks for it.

    kind  what it does, by which the policies go
    """

    tool: str
    arguments: dict[str, Any]
    context: str
    kind: str

    @property
    def production(self) -> bool:
        return self.context.startswith("environment: production")

    def body(self) -> dict[str, Any]:
        return {"tool": self.tool, "arguments": self.arguments, "context": self.context}


def generated(seed: int, count: int) -> list[Call]:
    """So many calls, the same for a seed."""
    chance = random.Random(seed)
    return [_call(chance, number) for number in range(count)]


def at_first(call: Call) -> bool:
    """Whether a call is blocked: what destroys, and mail to the outside."""
    return call.kind in ("remove", "delete", "mail outside")


def later(call: Call) -> bool:
    """The same, but production is frozen: nothing is to be written there; and the partner's mail is
    allowed."""
    if call.production and call.kind in ("write", "update", "remove", "delete"):
        return True
    if call.kind == "mail outside":
        return "partner.example" not in call.arguments["to"]
    return call.kind in ("remove", "delete")


def _call(chance: random.Random, number: int) -> Call:
    kind, make = chance.choice(_KINDS)
    tool, arguments = make(chance)
    environment = chance.choice(("staging", "production"))
    return Call(tool, arguments, f"environment: {environment}\ntask {number}", kind)


def _path(chance: random.Random) -> str:
    return f"/srv/{chance.choice(PLACES)}/{chance.choice(FILES)}"


_KINDS: list[tuple[str, Callable[[random.Random], tuple[str, dict[str, Any]]]]] = [
    ("read", lambda c: ("shell", {"command": f"{c.choice(['cat', 'head', 'wc -l'])} {_path(c)}"})),
    ("remove", lambda c: ("shell", {"command": f"rm {c.choice(['-f', '-rf'])} {_path(c)}"})),
    ("write", lambda c: ("write_file", {"path": _path(c), "lines": c.randint(1, 400)})),
    ("fetch", lambda c: ("http_get", {"url": f"https://{c.choice(HOSTS)}/{c.choice(PLACES)}"})),
    ("select", lambda c: ("sql", {"query": f"SELECT * FROM {c.choice(TABLES)} LIMIT 20"})),
    ("update", lambda c: ("sql", {"query": f"UPDATE {c.choice(TABLES)} SET seen = 1"})),
    ("delete", lambda c: ("sql", {"query": f"DELETE FROM {c.choice(TABLES)}"})),
    ("mail inside", lambda c: ("send_mail", {"to": f"{c.choice(PEOPLE)}@our.example"})),
    (
        "mail outside",
        lambda c: (
            "send_mail",
            {"to": f"{c.choice(PEOPLE)}@{c.choice(['partner.example', 'free.example'])}"},
        ),
    ),
]
