"""Sequence classification."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from igla.data.batch import PackedBatch
from igla.errors import UserError
from igla.objective.base import Loss
from igla.objective.losses import binary_cross_entropy, binary_focal, cross_entropy, focal
from igla.recipe import ObjectiveRecipe


@dataclass(frozen=True)
class Classify:
    """One of the classes, or any of them, for each sequence.

    loss_name      cross_entropy, binary_cross_entropy or focal
    class_weights  [C] weight of each class, or None for all alike; with several label columns,
                   the weight of its ones
    """

    loss_name: str
    multi_label: bool
    class_weights: Tensor | None
    label_smoothing: float
    focal_gamma: float

    def loss(self, model: nn.Module, batch: PackedBatch) -> Loss:
        """Loss of the model's logits [B, C] against batch.targets."""
        assert batch.targets is not None and batch.weights is not None
        return self.compare(model(batch), batch.targets, batch.weights)

    def compare(self, logits_BC: Tensor, targets: Tensor, weights_B: Tensor) -> Loss:
        """Loss of logits against targets: class indices [B], or 0/1 [B, C]."""
        weights = self.class_weights
        weights_C = None if weights is None else weights.to(logits_BC.device, logits_BC.dtype)
        common = (logits_BC, targets, weights_B, weights_C)
        match self.loss_name, self.multi_label:
            case "cross_entropy", False:
                return cross_entropy(*common, self.label_smoothing)
            case "binary_cross_entropy", True:
                return binary_cross_entropy(*common, self.label_smoothing)
            case "binary_cross_entropy", False:
                return self._of_the_margin(*common)
            case "focal", False:
                return focal(*common, self.focal_gamma)
            case _:
                return binary_focal(*common, self.focal_gamma)

    def counts(self, targets: Tensor, weights_B: Tensor) -> Tensor:
        """[B] what each sequence adds to the count that a loss is divided by."""
        if self.multi_label:
            return weights_B * targets.shape[1]
        if self.class_weights is None or self.loss_name == "binary_cross_entropy":
            return weights_B
        return weights_B * self.class_weights.to(weights_B)[targets]

    def _of_the_margin(
        self, logits_BC: Tensor, targets_B: Tensor, weights_B: Tensor, weights_C: Tensor | None
    ) -> Loss:
        """Two classes as one question: its logit is z₁ − z₀, so that σ of it is softmax's p₁."""
        margin_B1 = logits_BC[:, 1:] - logits_BC[:, :1]
        weights_1 = None if weights_C is None else (weights_C[1] / weights_C[0])[None]
        return binary_cross_entropy(
            margin_B1, targets_B[:, None], weights_B, weights_1, self.label_smoothing
        )


def classification(recipe: ObjectiveRecipe, labels: np.ndarray, classes: int) -> Classify:
    """The objective of a recipe for the labels to train on, [N] indices or [N, C] 0/1."""
    multi_label = labels.ndim == 2
    name = recipe.loss
    if name == "auto":
        name = "binary_cross_entropy" if multi_label else "cross_entropy"
    if multi_label and name == "cross_entropy":
        raise UserError("objective.loss=cross_entropy asks for one label a row, not several.")
    if not multi_label and name == "binary_cross_entropy" and classes != 2:
        raise UserError(
            f"objective.loss=binary_cross_entropy asks for two classes, here are {classes}."
        )
    weights = _class_weights(recipe, labels, classes)
    return Classify(name, multi_label, weights, recipe.label_smoothing, recipe.focal_gamma)


def _class_weights(recipe: ObjectiveRecipe, labels: np.ndarray, classes: int) -> Tensor | None:
    if isinstance(recipe.class_weights, tuple):
        if len(recipe.class_weights) != classes:
            raise UserError(
                f"objective.class_weights has {len(recipe.class_weights)} weights "
                f"for {classes} classes."
            )
        return torch.tensor(recipe.class_weights)
    if recipe.class_weights == "none":
        return None
    if labels.ndim == 2:
        return _balanced_ones(labels) if recipe.class_weights == "balanced" else None
    counts = np.bincount(labels, minlength=classes)
    even = len(labels) / classes
    if recipe.class_weights == "auto" and counts.min() >= even / 2:
        return None
    return torch.from_numpy(even / np.maximum(counts, 1)).float()


def _balanced_ones(labels: np.ndarray) -> Tensor:
    ones = labels.sum(axis=0)
    return torch.from_numpy((len(labels) - ones) / np.maximum(ones, 1)).float()
