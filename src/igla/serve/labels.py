"""What other services' names stand for among a model's classes."""

from collections.abc import Iterable

from igla.errors import UserError
from igla.serve.models import Served
from igla.serve.settings import Settings

# All that OpenAI's moderations answer with.
CATEGORIES = (
    *("harassment", "harassment/threatening", "hate", "hate/threatening", "illicit"),
    *("illicit/violent", "self-harm", "self-harm/intent", "self-harm/instructions"),
    *("sexual", "sexual/minors", "violence", "violence/graphic"),
)
_GRAVE = {"toxic", "toxicity", "rude", "offensive", "hate", "harassment", "1", "true", "yes"}


def attributes_of(settings: Settings, classes: tuple[str, ...]) -> dict[str, int]:
    """Perspective's attributes → column of the scores."""
    return _columns(settings.attributes, classes, "TOXICITY")


def categories_of(settings: Settings, classes: tuple[str, ...]) -> dict[str, int]:
    """OpenAI's categories → column of the scores."""
    return _columns(settings.categories, classes, "harassment")


def check_labels(settings: Settings, served: Iterable[Served]) -> None:
    """UserError for a name that stands for a class of no model, or that no client asks for."""
    classes = {name for one in served if one.scores for name in one.classes}
    named = {
        **{f"attributes.{name}": label for name, label in settings.attributes.items()},
        **{f"categories.{name}": label for name, label in settings.categories.items()},
        **{f"decisions.{label}": label for label in settings.decisions},
    }
    for where, label in named.items():
        if label not in classes:
            raise UserError(
                f"{where}: no model has the class {label}; there are {', '.join(sorted(classes))}."
            )
    for name in settings.categories:
        if name not in CATEGORIES:
            known = ", ".join(CATEGORIES)
            raise UserError(f"categories.{name}: OpenAI has no such category; there are {known}.")


def _columns(asked: dict[str, str], classes: tuple[str, ...], usual: str) -> dict[str, int]:
    named = {name: classes.index(label) for name, label in asked.items() if label in classes}
    return named or {usual: _grave(classes)}


def _grave(classes: tuple[str, ...]) -> int:
    """The class that is to be looked at: the one with such a name, or else the last."""
    for column, name in enumerate(classes):
        if name.casefold() in _GRAVE:
            return column
    return len(classes) - 1
