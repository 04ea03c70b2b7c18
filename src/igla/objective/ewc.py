"""Elastic weight consolidation: what the old rows needed stays where it is."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from igla.data.batch import PackedBatch
from igla.objective.base import Loss, Objective


def fisher_diagonal(
    model: nn.Module, objective: Objective, examples: Iterable[PackedBatch]
) -> dict[str, Tensor]:
    """[…] by parameter name: the mean over examples of the squared gradient of each one's loss.

    examples  batches of one sequence each; how much a sequence weighs does not enter, and one of
              which nothing is guessed is passed over

    F = 1/N · Σ_n (∂ℓ_n/∂θ)², the diagonal of the empirical Fisher information at the weights as
    they are (Kirkpatrick et al. 2017, equation 3), in eval mode: dropout would add its own
    variance. It is not the square of the mean gradient, which is 0 where a model has converged. No
    gradient is left behind.
    """
    training = model.training
    model.eval()
    named = {name: one for name, one in model.named_parameters() if one.requires_grad}
    sums = {name: torch.zeros_like(parameter) for name, parameter in named.items()}
    count = 0
    for example in examples:
        loss = objective.loss(model, example)
        if not loss.count:
            continue
        gradients = torch.autograd.grad(
            loss.sum / loss.count, list(named.values()), allow_unused=True
        )
        for name, gradient in zip(named, gradients, strict=True):
            if gradient is not None:
                dense = gradient.to_dense() if gradient.is_sparse else gradient
                sums[name] += dense.to(sums[name].dtype) ** 2
        count += 1
    model.train(training)
    return {name: total / max(1, count) for name, total in sums.items()}


@dataclass(frozen=True, eq=False)
class Anchored:
    """An objective and what it costs to leave the weights at which the old rows were learned.

    L + λ/2 · Σ_i F_i·(θ_i − θ*_i)²  (Kirkpatrick et al. 2017, equation 3)

    plain     L, a mean once the loop has divided it
    anchor    θ* by parameter name
    fisher    F by parameter name; a parameter that is not in it moves freely
    strength  λ
    """

    plain: Objective
    anchor: Mapping[str, Tensor]
    fisher: Mapping[str, Tensor]
    strength: float

    def loss(self, model: nn.Module, batch: PackedBatch) -> Loss:
        """The loop divides sums by counts: with its batch's count each part of a step has its share
        of the penalty, and the whole step has it once."""
        found = self.plain.loss(model, batch)
        penalty = self.penalty(model)
        return replace(
            found,
            sum=found.sum + penalty.to(found.sum.dtype) * found.count.detach(),
            parts=found.parts | {"penalty": penalty.detach() * found.count.detach()},
        )

    def penalty(self, model: nn.Module) -> Tensor:
        """λ/2 · Σ_i F_i·(θ_i − θ*_i)² at the weights as they are."""
        terms = [
            (self.fisher[name] * (parameter - self.anchor[name]) ** 2).sum()
            for name, parameter in model.named_parameters()
            if name in self.fisher
        ]
        return self.strength / 2 * torch.stack(terms).sum()


def anchored(
    plain: Objective,
    model: nn.Module,
    old: Objective,
    examples: Iterable[PackedBatch],
    strength: float,
) -> Anchored:
    """An objective anchored at a model's weights as they are, by what `old` examples need of them.

    Of the weights only those that are trained are held; examples and strength are those of
    `fisher_diagonal` and `Anchored`.
    """
    fisher = fisher_diagonal(model, old, examples)
    anchor = {
        name: one.detach().clone() for name, one in model.named_parameters() if name in fisher
    }
    return Anchored(plain, anchor, fisher, strength)
