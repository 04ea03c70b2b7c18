"""The classifier as scikit-learn's estimator."""

import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from rich.console import Console
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from igla.errors import UserError
from igla.infer.classifier import Classifier, model_folder
from igla.recipe import Recipe, load_recipe
from igla.terminal import plain_console
from igla.train.run import train


class TextClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A transformer that learns to classify texts.

    Parameters
    ----------
    base : folder or Hub name of a pretrained base; None trains from scratch; "auto" takes
        minilm-ru, which comes with igla, for Russian texts, and none for others
    size : named shape of a model from scratch; any but the default one does without "auto"'s base
    epochs : passes over the data; None lets the amount of data decide
    learning_rate : peak rate; None takes the base's or the scratch rate
    batch_size : rows in an optimizer step
    max_length : tokens at which texts are cut
    validation_share : share of the rows that the best epoch and the threshold are chosen on
    random_state : seed of everything random
    settings : further settings of the recipe, as {"optim.weight_decay": 0.1}; they go before the
        parameters above
    output : run folder to keep; None keeps the model in memory alone
    verbose : print what the command line prints

    Attributes
    ----------
    classes_ : the distinct labels, sorted, in the order of predict_proba's columns
    classifier_ : the fitted igla.infer.classifier.Classifier

    Examples
    --------
    >>> TextClassifier(epochs=3).fit(texts, labels).predict(["a new text"])  # doctest: +SKIP
    """

    def __init__(
        self,
        base: str | None = "auto",
        size: str = "minilm-l6-h384",
        epochs: float | None = None,
        learning_rate: float | None = None,
        batch_size: int = 32,
        max_length: int = 128,
        validation_share: float = 0.1,
        random_state: int | None = None,
        settings: dict[str, Any] | None = None,
        output: str | None = None,
        verbose: bool = False,
    ):
        self.base = base
        self.size = size
        self.epochs = epochs
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.max_length = max_length
        self.validation_share = validation_share
        self.random_state = random_state
        self.settings = settings
        self.output = output
        self.verbose = verbose

    def fit(
        self, X: Sequence[str], y: Sequence[Any], sample_weight: Sequence[float] | None = None
    ) -> Self:
        """Learn from texts and their labels.

        Raises UserError when they cannot be learned from, and KeyboardInterrupt after Ctrl-C; with
        an `output`, fitting again goes on from there. Texts that carry different labels are left
        out, with a warning that counts them.
        """
        texts, labels = _texts(X), np.asarray(y)
        if len(texts) != len(labels):
            raise ValueError(f"There are {len(texts)} texts, but {len(labels)} labels.")
        self.classes_, indices = np.unique(labels, return_inverse=True)
        columns: dict[str, Any] = {"text": texts, "label": [str(index) for index in indices]}
        if sample_weight is not None:
            columns["weight"] = np.asarray(sample_weight, dtype=np.float32)
        with tempfile.TemporaryDirectory(prefix="igla-fit-") as made:
            rows = Path(made) / "rows.parquet"
            pyarrow.parquet.write_table(pa.table(columns), rows)
            folder = Path(self.output) if self.output else Path(made) / "run"
            recipe = self._recipe(rows, sample_weight is not None)
            if not train(recipe, folder, self._console()).finished:
                raise KeyboardInterrupt
            self.classifier_ = Classifier.load(model_folder(folder))
            _warn_of_dropped(folder)
        return self

    def predict(self, X: Sequence[str]) -> np.ndarray:
        """The label [N] of each text."""
        check_is_fitted(self)
        probabilities = self.classifier_.probabilities(_texts(X))
        return np.asarray(self.classes_[self.classifier_.rule.labels(probabilities)])

    def predict_proba(self, X: Sequence[str]) -> np.ndarray:
        """Calibrated probabilities [N, C], columns as classes_."""
        check_is_fitted(self)
        return self.classifier_.probabilities(_texts(X))

    @classmethod
    def load(cls, path: str | Path) -> "TextClassifier":
        """A fitted classifier from a run or model folder."""
        loaded = cls()
        loaded.classifier_ = Classifier.load(model_folder(path))
        loaded.classes_ = np.array(loaded.classifier_.rule.classes)
        return loaded

    def _recipe(self, rows: Path, weighted: bool) -> Recipe:
        settings = self.settings or {}
        recipe = load_recipe(None, [f"{key}={value}" for key, value in settings.items()])
        own: dict[str, Any] = dict(
            data__source=str(rows),
            data__text_column="text",
            data__label_columns=("label",),
            data__weight_column="weight" if weighted else None,
            data__validation_share=self.validation_share,
            data__test_share=0.0,
            text__max_length=self.max_length,
            model__base=self.base,
            model__size=self.size,
            optim__learning_rate="auto" if self.learning_rate is None else self.learning_rate,
            train__epochs="auto" if self.epochs is None else self.epochs,
            train__batch_size=self.batch_size,
            train__seed=recipe.train.seed if self.random_state is None else self.random_state,
        )
        for key in settings:  # they were named one by one, and the parameters have defaults
            own.pop(key.replace(".", "__"), None)
        return recipe.replace(**own)

    def _console(self) -> Console:
        return plain_console(quiet=not self.verbose)


def _texts(X: Sequence[str]) -> list[str]:
    if isinstance(X, str):
        raise ValueError("Give a list of texts, not one text.")
    texts = np.asarray(X, dtype=object).ravel().tolist()
    wrong = next((row for row, text in enumerate(texts) if not isinstance(text, str)), None)
    if wrong is not None:
        raise UserError(f"Row {wrong} is no text but {texts[wrong]!r}; give strings.")
    return texts


def _warn_of_dropped(folder: Path) -> None:
    from igla.model.folder import read_json

    for decision in read_json(folder / "data.json")["decisions"]:
        if decision["said"].startswith("dropped"):
            warnings.warn(decision["said"], stacklevel=3)
