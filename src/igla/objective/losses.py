"""Losses of classifiers, as a weighted sum and what it is to be divided by.

Shape suffixes: B sequences, C classes. `weights_B` says how much each sequence counts.
"""

import torch.nn.functional as F
from torch import Tensor

from igla.objective.base import Loss


def cross_entropy(
    logits_BC: Tensor,
    targets_B: Tensor,
    weights_B: Tensor,
    class_weights_C: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Loss:
    """Cross-entropy with class weights w, example weights v and label smoothing ε.

    sum   Σ_b v_b·[(1−ε)·w_y·(−log p_y) + ε/C·Σ_c w_c·(−log p_c)]
    count Σ_b v_b·w_y

    Label smoothing as Szegedy et al. 2016, section 7; class weights enter both terms and the
    count, as in torch.nn.CrossEntropyLoss.
    """
    terms_B = F.cross_entropy(
        logits_BC, targets_B, class_weights_C, reduction="none", label_smoothing=label_smoothing
    )
    counts_B = weights_B if class_weights_C is None else weights_B * class_weights_C[targets_B]
    return Loss((terms_B * weights_B).sum(), counts_B.sum())


def binary_cross_entropy(
    logits_BC: Tensor,
    targets_BC: Tensor,
    weights_B: Tensor,
    positive_weights_C: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Loss:
    """Binary cross-entropy on logits z, one question a class, with weights u for the ones.

    sum   Σ_b v_b·Σ_c [−u_c·t·log σ(z) − (1−t)·log(1−σ(z))],  t = (1−ε)·y + ε/2
    count C·Σ_b v_b

    As torch.nn.BCEWithLogitsLoss, whose mean this is for weights of 1.
    """
    targets_BC = targets_BC.to(logits_BC.dtype) * (1 - label_smoothing) + label_smoothing / 2
    terms_BC = F.binary_cross_entropy_with_logits(
        logits_BC, targets_BC, pos_weight=positive_weights_C, reduction="none"
    )
    total = (terms_BC * weights_B[:, None]).sum()
    return Loss(total, weights_B.sum() * logits_BC.shape[1])


def focal(
    logits_BC: Tensor,
    targets_B: Tensor,
    weights_B: Tensor,
    class_weights_C: Tensor | None = None,
    gamma: float = 2.0,
) -> Loss:
    """Focal loss (Lin et al. 2017, equation 5) of the softmax probability of the true class.

    sum   Σ_b −v_b·w_y·(1−p_y)^γ·log p_y
    count Σ_b v_b·w_y
    """
    log_p_B = F.log_softmax(logits_BC, dim=-1).gather(1, targets_B[:, None])[:, 0]
    counts_B = weights_B if class_weights_C is None else weights_B * class_weights_C[targets_B]
    terms_B = -((1 - log_p_B.exp()) ** gamma) * log_p_B
    return Loss((terms_B * counts_B).sum(), counts_B.sum())


def binary_focal(
    logits_BC: Tensor,
    targets_BC: Tensor,
    weights_B: Tensor,
    positive_weights_C: Tensor | None = None,
    gamma: float = 2.0,
) -> Loss:
    """Focal loss (Lin et al. 2017, equation 4) of several yes-or-no questions.

    sum   Σ_b v_b·Σ_c −a·(1−q)^γ·log q,  q = σ(z), a = u_c for a one; q = 1−σ(z), a = 1 for a zero
    count C·Σ_b v_b
    """
    targets_BC = targets_BC.to(logits_BC.dtype)
    log_q_BC = F.logsigmoid(logits_BC * (2 * targets_BC - 1))
    terms_BC = -((1 - log_q_BC.exp()) ** gamma) * log_q_BC
    if positive_weights_C is not None:
        terms_BC = terms_BC * (1 + targets_BC * (positive_weights_C - 1))
    total = (terms_BC * weights_B[:, None]).sum()
    return Loss(total, weights_B.sum() * logits_BC.shape[1])
