"""What is learned: from a model and a batch to a loss."""

from igla.objective.base import Loss, Objective

__all__ = ["Loss", "Objective"]
