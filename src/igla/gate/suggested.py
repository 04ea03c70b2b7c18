"""What a client of Perspective's suggests, as feedback."""

import hashlib
import json

from igla.gate.context import clean, digest, visible
from igla.gate.log import NewFeedback
from igla.gate.outcomes import judged
from igla.serve.decisions import Verdict
from igla.serve.models import Served
from igla.serve.service import Refused
from igla.serve.suggestions import Suggestion


def feedback_of(
    suggestion: Suggestion, served: Served, column: int, action: Verdict
) -> NewFeedback:
    """Half a chance and more of the class that is blocked means: to be blocked.

    action  what the gate decides on the text now, by which it is seen whether it is wrong
    """
    text = clean(suggestion.text)
    return NewFeedback(
        outcome=judged(action, _blocked(suggestion, served, column) < 0.5),
        text=text,
        context=digest(text),
        model=served.name,
        who=visible(suggestion.session or "", 200),
        slice=visible(suggestion.community or "", 100) or None,
        key=suggestion.by or "",
        source="perspective",
        idempotency_key=_mark(suggestion),
    )


def _blocked(suggestion: Suggestion, served: Served, column: int) -> float:
    """The suggested probability of the class that is blocked; Refused when there is none."""
    label = served.classes[column]
    if label in suggestion.scores:
        return suggestion.scores[label]
    if len(served.classes) == 2 and not served.classifier.rule.multi_label:
        return 1.0 - next(iter(suggestion.scores.values()))
    named = ", ".join(suggestion.scores)
    raise Refused(400, f"This gate decides by {label}; it learns nothing from {named}.")


def _mark(suggestion: Suggestion) -> str | None:
    """An idempotency key of what came with a mark of the client's own: the same mark and the same
    content are the same suggestion."""
    if suggestion.client_token is None:
        return None
    said = [suggestion.client_token, suggestion.session, suggestion.community]
    content = json.dumps([*said, suggestion.text, suggestion.scores], sort_keys=True)
    return f"perspective-{hashlib.sha256(content.encode()).hexdigest()}"
