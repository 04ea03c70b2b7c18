"""Allow, review or block: the gate's own cuts, on the probability of allow."""

from dataclasses import dataclass

from igla.gate.settings import GateServerSettings, Thresholds
from igla.serve.decisions import Verdict, cuts_of
from igla.serve.labels import attributes_of
from igla.serve.models import Served
from igla.serve.settings import Decision, Settings


@dataclass(frozen=True)
class Cuts:
    """allow  least probability of allow that is allowed
    block  highest that is blocked; what lies between is for a person
    """

    allow: float
    block: float

    def action(self, probability: float) -> Verdict:
        """What a probability of allow calls for."""
        if probability >= self.allow:
            return "allow"
        return "block" if probability <= self.block else "review"


def blocked_column(settings: GateServerSettings, served: Served) -> int:
    """The class that is to be blocked: the probability of allow is that of all the others."""
    label = settings.gate.label
    if label in served.classes:
        return served.classes.index(label)
    return next(iter(attributes_of(settings, served.classes).values()))


def cuts(settings: GateServerSettings, served: Served, tool: str | None) -> Cuts:
    """The cuts for a text, or for the calls of a tool: its own, else the gate's, else those of the
    server's decisions for the class."""
    of_tool = settings.gate.tools.get(tool, Thresholds()) if tool else Thresholds()
    review, block = (round(1 - cut, 12) for cut in _served(settings, served))
    allow = _first(of_tool.allow, settings.gate.allow, review)
    return Cuts(allow, min(allow, _first(of_tool.block, settings.gate.block, block)))


def _served(settings: GateServerSettings, served: Served) -> tuple[float, float]:
    column = blocked_column(settings, served)
    found = cuts_of(settings, served)
    if column not in found:
        only = Settings(decisions={served.classes[column]: Decision()})
        found = cuts_of(only, served)
    return found[column]


def _first(*cuts: float | None) -> float:
    return next(one for one in cuts if one is not None)
