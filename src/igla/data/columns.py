"""Which columns hold the texts and the labels: as the user says, else by their usual names."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from igla.errors import UserError

# In order of preference.
TEXT_NAMES = (
    *("text", "comment", "comment_text", "sentence", "content", "review", "review_text"),
    *("message", "body", "tweet", "post", "utterance", "document", "description", "title"),
    *("текст", "комментарий", "сообщение", "отзыв", "предложение", "пост"),
)
LABEL_NAMES = (
    *(
        "label",
        "labels",
        "toxic",
        "target",
        "class",
        "category",
        "sentiment",
        "is_toxic",
        "acceptable",
    ),
    *("toxicity", "y", "intent", "topic"),
    *("метка", "метки", "класс", "категория", "токсичность", "тональность", "тема"),
)


@dataclass(frozen=True)
class Columns:
    """The columns to use.

    text    column of the texts
    labels  one column for single-label data, several for multi-label; () for texts alone
    said    one line for the user: which were chosen, and why
    """

    text: str
    labels: tuple[str, ...]
    said: str


def choose_columns(
    names: Sequence[str],
    text: str | None,
    labels: Sequence[str] | None,
    *,
    labels_required: bool,
    where: str,
) -> Columns:
    """Settle the text and label columns among `names`, the columns of `where`.

    What the user gives is taken as it is. The rest goes by its usual name, in whatever case. Of
    two columns, one of which is settled, the other has the other role; where labels are not
    required, a column becomes one only by its name, and an only column is the text. Several label
    columns are never chosen unless given.

    Raises UserError for a given column that is missing or given twice, and for a role that no
    column can be found for.
    """
    given = [*([] if text is None else [text]), *(labels or ())]
    _check_given(given, names, where)
    free = [name for name in names if name not in given]
    why_text = why_labels = "as given"
    if text is None:
        if len(names) == len(free) == 1:
            text, why_text = names[0], "the only column"
        else:
            text, why_text = _by_name(free, TEXT_NAMES)
        free = [name for name in free if name != text]
    if not labels:
        label, why_labels = _by_name(free, LABEL_NAMES)
        labels = () if label is None else (label,)
        free = [name for name in free if name != label]

    if text is None and len(free) == 1:
        text, why_text = free.pop(), "the only column left"
    if text is None:
        raise UserError(_not_found("texts", "--text-column", names, where))
    if labels_required and not labels and len(free) == 1:
        labels, why_labels = (free.pop(),), "the only column left"
    if labels_required and not labels:
        raise UserError(_not_found("labels", "--label-column", names, where))
    return Columns(text, tuple(labels), _said(text, why_text, labels, why_labels))


def _said(text: str, why_text: str, labels: Sequence[str], why_labels: str) -> str:
    said = f"text column {_quoted([text])} ({why_text})"
    reasons = {why_text}
    if labels:
        said += f", label column{'s' * (len(labels) > 1)} {_quoted(labels)} ({why_labels})"
        reasons.add(why_labels)
    if reasons != {"as given"}:
        said += "; --text-column and --label-column choose others"
    return said


def _check_given(given: Sequence[str], names: Sequence[str], where: str) -> None:
    for name in given:
        if name not in names:
            near = _nearest(name, names)
            hint = f'did you mean "{near}"?' if near else f"its columns are {_quoted(names)}."
            raise UserError(f'{where} has no column "{name}"; {hint}')
        if given.count(name) > 1:
            raise UserError(
                f'{where}: column "{name}" is asked for twice; '
                "name different ones with --text-column and --label-column."
            )


def _by_name(free: Sequence[str], usual: Sequence[str]) -> tuple[str | None, str]:
    """The preferred column among those with a usual name, and why that one."""
    found = [name for want in usual for name in free if name.strip().casefold() == want]
    if not found:
        return None, ""
    why = "by its name"
    if len(found) > 1:
        why += f", before {_quoted(found[1:])}"
    return found[0], why


def _nearest(name: str, names: Sequence[str]) -> str | None:
    folded = {known.casefold(): known for known in names}
    near = difflib.get_close_matches(name.casefold(), folded, n=1)
    return folded[near[0]] if near else None


def _not_found(role: str, flag: str, names: Sequence[str], where: str) -> str:
    return (
        f"{where} has no column with a usual name for {role} among {_quoted(names)}; "
        f"name it with {flag}."
    )


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)
