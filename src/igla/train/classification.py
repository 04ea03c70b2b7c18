"""The task of a classifier: rows with labels, and a report at the end."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from igla.data.batch import PackedBatch
from igla.data.evading import EvadingRows
from igla.data.split import TRAIN, VALIDATION
from igla.data.store import TokenStore
from igla.errors import UserError
from igla.evaluate.baseline import out_of_fold
from igla.evaluate.calibration import fit_temperature
from igla.evaluate.decision import apply_temperature
from igla.evaluate.metrics import TINY, Scored, choose_threshold, headline, log_loss, row_losses
from igla.infer.classifier import Classifier, model_folder
from igla.model.encoder import SequenceClassifier
from igla.objective.classify import classification
from igla.objective.regularised import Regularised, Teacher, WordDropout
from igla.recipe import BASELINE, ObjectiveRecipe, Recipe
from igla.text.tokenizer import TextEncoder
from igla.train.finish import Finished, finish
from igla.train.setup import Setup, build_model, logits_of, set_up
from igla.train.task import Ended, Evaluation, Say, Sources


@dataclass(frozen=True)
class Classification:
    """See task.Task."""

    setup: Setup
    # The lowest loss at the temperature that suits it, since overconfidence is mended at the end of
    # the run anyhow. It depends on no threshold, and unlike a ranking it sees whether the classes'
    # scores can be compared.
    best_by = "calibrated_loss"

    @classmethod
    def open(cls, recipe: Recipe, folder: Path, say: Say) -> "Classification":
        return cls(set_up(recipe, folder, say))

    @property
    def encoder(self) -> TextEncoder:
        return self.setup.encoder

    @property
    def store(self) -> TokenStore:
        return self.setup.store

    @property
    def rows(self) -> np.ndarray:
        return self.setup.rows(TRAIN)

    @property
    def sources(self) -> Sources:
        return Sources(("data",), np.zeros(len(self.rows), dtype=np.int64))

    def settled(self, recipe: Recipe) -> Recipe:
        return recipe.replace(model__base=self.setup.base_name)

    def shown(self, recipe: Recipe) -> Callable[[np.ndarray, int], PackedBatch] | None:
        share, setup = recipe.text.evasion, self.setup
        if not share:
            return None
        return EvadingRows(
            setup.dataset, setup.encoder, setup.store, share, recipe.train.seed
        ).batch

    def texts(self) -> list[str]:
        return list(self.setup.dataset.texts(self.rows))

    def losses(self, judge: Path) -> np.ndarray:
        labels = self.setup.dataset.labels
        probabilities = self._judged(judge)
        targets = labels.values[self.rows]
        return row_losses(Scored(labels.classes, targets, probabilities, labels.multi_label))

    def shrunk(self, rows: int) -> "Classification":
        return Classification(self.setup.shrunk(rows))

    def build_model(self, recipe: Recipe, say: Say) -> SequenceClassifier:
        return build_model(recipe, self.setup, say)

    def objective(self, recipe: Recipe) -> Regularised:
        labels, asked = self.setup.dataset.labels, recipe.objective
        plain = classification(asked, labels.values[self.rows], len(labels.classes))
        return Regularised(
            plain,
            asked.r_drop,
            asked.mixup,
            asked.adversary,
            asked.adversary_reach,
            self._word_dropout(asked.word_dropout),
            self._teacher(asked),
        )

    def _word_dropout(self, share: float) -> WordDropout | None:
        if not share:
            return None
        encoder = self.setup.encoder
        return WordDropout(share, encoder.mask_token_id, torch.from_numpy(encoder.special))

    def _teacher(self, asked: ObjectiveRecipe) -> Teacher | None:
        """The teachers' mean prediction on the rows to train on, as logits."""
        if not asked.teachers:
            return None
        labels = self.setup.dataset.labels
        mean = np.mean([self._taught(one) for one in asked.teachers], axis=0)
        mean = np.clip(mean, TINY, 1 - TINY)
        logits = np.zeros((len(self.setup.dataset.parts), len(labels.classes)), dtype=np.float32)
        logits[self.rows] = np.log(mean) - (np.log(1 - mean) if labels.multi_label else 0)
        return Teacher(torch.from_numpy(logits), asked.teacher_weight, asked.teacher_temperature)

    def _taught(self, teacher: str) -> np.ndarray:
        """Probabilities [N, C] of the rows to train on by a teacher."""
        if teacher != BASELINE:
            return self._judged(Path(teacher))
        dataset, rows = self.setup.dataset, self.rows
        values, weights = dataset.labels.values[rows], dataset.weights[rows]
        # Of several labels a row, a combination may well be there only once.
        strata = None if dataset.labels.multi_label else values
        return out_of_fold(
            dataset.texts(rows), values, weights, strata, len(dataset.labels.classes)
        )

    def _judged(self, folder: Path) -> np.ndarray:
        """Probabilities [N, C] of the rows to train on by a finished classifier."""
        library = torch.get_float32_matmul_precision()
        classifier, labels = Classifier.load(model_folder(folder)), self.setup.dataset.labels
        torch.set_float32_matmul_precision(library)  # the one that this run began with
        theirs = classifier.rule.classes, classifier.rule.multi_label
        if theirs != (labels.classes, labels.multi_label):
            raise UserError(f"{folder} does not tell the classes {', '.join(labels.classes)}.")
        stretches = self.setup.dataset.text_batches(self.rows)
        return np.concatenate([classifier.probabilities(texts) for texts in stretches])

    def evaluate(self, model: SequenceClassifier) -> Evaluation:
        logits = logits_of(model, self.setup, VALIDATION)
        labels = self.setup.dataset.labels
        targets, multi_label = labels.values[self.setup.rows(VALIDATION)], labels.multi_label
        temperature = fit_temperature(logits, targets)
        raw, calibrated = (
            Scored(
                labels.classes, targets, apply_temperature(logits, degree, multi_label), multi_label
            )
            for degree in (1.0, temperature)
        )
        found = headline(calibrated, choose_threshold(calibrated))
        figures = {
            "validation_loss": log_loss(raw),
            self.best_by: log_loss(calibrated),
            **{name: found[name] for name in ("accuracy", "macro_f1", "roc_auc", "pr_auc")},
        }
        said = (
            f"validation loss {figures['validation_loss']:.4f} "
            f"({figures[self.best_by]:.4f} calibrated), "
            f"macro-F1 {figures['macro_f1']:.4f}, PR-AUC {figures['pr_auc']:.4f}"
        )
        return Evaluation(figures, said)

    def finish(self, ended: Ended, say: Say) -> None:
        finish(Finished(setup=self.setup, **vars(ended)), say)
