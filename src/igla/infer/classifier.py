"""A saved classifier, from texts to scores."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from igla.adapt.folder import is_adapter
from igla.adapt.opened import open_classifier
from igla.data.batch import pack
from igla.errors import UserError, first_fault
from igla.evaluate.decision import apply_temperature, decide
from igla.infer.scoring import score
from igla.model.encoder import SequenceClassifier
from igla.model.folder import read_json, save_classifier
from igla.ops.native import native
from igla.ops.products import prepare_to_answer
from igla.text.tokenizer import TextEncoder, load_tokenizer, save_tokenizer

DECISION_FILE = "igla.json"


@dataclass(frozen=True)
class DecisionRule:
    """How scores become labels.

    temperature  that the logits are divided by
    threshold    of two classes, the second one's least probability; with several labels a row,
                 one for each; None: the likeliest class
    """

    classes: tuple[str, ...]
    multi_label: bool
    temperature: float = 1.0
    threshold: float | tuple[float, ...] | None = None

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Calibrated probabilities [N, C] of logits [N, C]."""
        return apply_temperature(logits, self.temperature, self.multi_label)

    def labels(self, probabilities: np.ndarray) -> np.ndarray:
        """Class indices [N], or 0/1 [N, C]."""
        return decide(probabilities, self.multi_label, self.threshold)

    def names(self, probabilities: np.ndarray) -> list[str]:
        """The label of each row; of several labels, their names with commas between."""
        labels = self.labels(probabilities)
        if not self.multi_label:
            return [self.classes[label] for label in labels]
        return [
            ",".join(name for name, one in zip(self.classes, row, strict=True) if one)
            for row in labels
        ]


class Classifier:
    """A model, its tokenizer and its decision rule."""

    def __init__(self, model: SequenceClassifier, encoder: TextEncoder, rule: DecisionRule):
        self.model = model.eval()
        self.encoder = encoder
        self.rule = rule

    @classmethod
    def load(cls, folder: Path) -> "Classifier":
        """Open a model folder of igla, or any of Hugging Face's of the BERT family.

        From here on torch computes float32 products by the library that is faster on this machine.
        """
        prepare_to_answer()
        native()  # compiled now, if need be, and not with the first text
        rule_file = folder / DECISION_FILE
        content = read_json(rule_file) if rule_file.is_file() else {}
        loaded = open_classifier(folder, len(content["classes"]) if "classes" in content else None)
        if loaded.new:
            raise UserError(f"{folder} has no classifier ({loaded.new[0]} is missing): train one.")
        limit = loaded.model.config.max_positions
        max_length = content.pop("max_length", limit)
        if not isinstance(max_length, int) or max_length < 2:
            raise UserError(f"{rule_file}, max_length: {max_length!r} is no number of tokens.")
        rule = _saved(rule_file, content) if content else _described(loaded.content, loaded.model)
        if len(rule.classes) != loaded.model.output.out_features:
            raise UserError(
                f"{rule_file} names {len(rule.classes)} classes, but the model has "
                f"{loaded.model.output.out_features}."
            )
        encoder = TextEncoder(load_tokenizer(folder), min(max_length, limit))
        return cls(loaded.model, encoder, rule)

    def save(self, folder: Path, content: dict[str, Any], tokenizer_source: Path) -> None:
        """Write the model folder's files; `content` is the config.json that the base came with."""
        save_classifier(
            folder,
            self.model,
            self.rule.classes,
            multi_label=self.rule.multi_label,
            pad_token_id=self.encoder.pad_token_id,
            content=content,
        )
        self.save_reading(folder, tokenizer_source)

    def save_reading(self, folder: Path, tokenizer_source: Path) -> None:
        """Write what goes around the model: the tokenizer and the decision rule."""
        save_tokenizer(folder, self.encoder, tokenizer_source)
        rule = asdict(self.rule) | {"max_length": self.encoder.max_length}
        text = json.dumps(rule, ensure_ascii=False, indent=1)
        (folder / DECISION_FILE).write_text(text + "\n", encoding="utf-8")

    def logits(self, texts: Sequence[str]) -> np.ndarray:
        """Logits [N, C] of texts, in float32 arithmetic."""
        return self.logits_of(self.encoder.encode(texts).ids)

    def logits_of(self, ids: Sequence[np.ndarray]) -> np.ndarray:
        """Logits [N, C] of N texts or windows as token ids, each as the encoder frames it."""
        if not len(ids):
            return np.empty((0, len(self.rule.classes)))
        lengths = np.array([len(sequence) for sequence in ids])
        device = next(self.model.parameters()).device
        return score(self.model, lengths, lambda rows: pack([ids[row] for row in rows]), device)

    def probabilities(self, texts: Sequence[str]) -> np.ndarray:
        """Calibrated probabilities [N, C] of texts."""
        return self.rule.probabilities(self.logits(texts))


def model_folder(where: str | Path) -> Path:
    """The model folder of a run, or the folder itself; UserError when there is no model."""
    folder = Path(where)
    if not folder.exists():
        raise UserError(f"There is no folder {folder}.")
    for one in (folder / "model", folder):
        if (one / "config.json").is_file() or is_adapter(one):
            return one
    if (folder / "recipe.yaml").is_file():
        raise UserError(f"The run {folder} is not finished: igla train --resume {folder}")
    raise UserError(f"{folder} holds neither a run nor a model.")


def _saved(file: Path, content: dict[str, Any]) -> DecisionRule:
    try:
        return TypeAdapter(DecisionRule).validate_python(content)
    except ValidationError as error:
        raise UserError(f"{file}, {first_fault(error)}.") from None


def _described(config: dict[str, Any], model: SequenceClassifier) -> DecisionRule:
    """The rule of a model that was saved without one: what its config.json says of its classes."""
    names = config.get("id2label") or {}
    count = model.output.out_features
    classes = tuple(str(names.get(str(index), f"LABEL_{index}")) for index in range(count))
    return DecisionRule(classes, config.get("problem_type") == "multi_label_classification")
