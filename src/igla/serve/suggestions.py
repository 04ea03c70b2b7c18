"""What clients hold against a score: a better one, for whoever keeps and learns from it.

The server itself keeps nothing. Who does (igla.gate) hands `create_app` a sink.
"""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Suggestion:
    """The scores that a text should have had.

    scores        class of the model → probability in [0, 1]
    model         name and version of what answers at this moment; which version the client was
    version       answered by, it does not say
    by            name of the key that it came with; None where the server asks for none
    community     what the client said of its forum, of its session, and as its own mark; these
    session       are passed on as they came
    client_token
    languages     as the client named them, or as detected
    """

    text: str
    scores: dict[str, float]
    model: str
    version: str
    by: str | None
    community: str | None
    session: str | None
    client_token: str | None
    languages: tuple[str, ...]


class NotKept(Exception):
    """A suggestion could not be written down; says why in a sentence that the client is told."""


class SuggestionSink(Protocol):
    """Keeps suggestions."""

    async def record(self, suggestion: Suggestion) -> None:
        """Returns when the suggestion is durable: the client is told 200 upon it.

        Raises NotKept when it is not. Cancelled when it takes longer than a request may; the client
        then knows no more than that it should ask again.
        """
