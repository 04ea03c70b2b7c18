"""Which tokens are hidden from a model that is to guess them, and what it sees instead."""

from dataclasses import dataclass

import torch
from torch import Tensor

SHOWN_AS_MASK, SHOWN_AS_ANOTHER = 0.8, 0.1
# Of the spans' lengths (Joshi et al. 2020): geometric with this chance to end, at most so long.
SPAN_ENDS, LONGEST_SPAN = 0.2, 10


@dataclass(frozen=True)
class Masking:
    """How tokens are masked.

    share      of all tokens but the special ones
    unit       token, word or span: what is masked as a whole
    mask_id    the token that stands for a masked one
    special    [V] bool, which tokens are never masked
    continues  [V] bool, which tokens go on with a word that another has begun
    """

    share: float
    unit: str
    mask_id: int
    special: Tensor
    continues: Tensor

    def choose(self, tokens_T: Tensor) -> Tensor:
        """Positions [M] of the tokens to guess, in order.

        M is the share of the tokens that may be masked, to within one unit, in each batch, not on
        average alone; every such token has about the same chance.
        """
        device = tokens_T.device
        free = ~self.special.to(device)[tokens_T]
        wanted = max(1, round(self.share * int(free.sum())))
        if self.unit == "token":
            begins = free
        elif self.unit == "word":
            begins = free & ~self.continues.to(device)[tokens_T]
        else:
            begins = free & _spans_begin(tokens_T)
        # A special token ends a unit as well; units are numbered through, special tokens' too.
        begins = begins | ~free | ~free.roll(1)
        begins[0] = True
        unit_T = begins.cumsum(0) - 1
        units = int(unit_T[-1]) + 1
        sizes = torch.zeros(units, dtype=torch.long, device=device)
        sizes.index_add_(0, unit_T, free.long())
        order = torch.randperm(units, device=device)
        taken = torch.zeros(units, dtype=torch.bool, device=device)
        taken[order[: int((sizes[order].cumsum(0) < wanted).sum()) + 1]] = True
        return (taken[unit_T] & free).nonzero().flatten()

    def hide(self, tokens_T: Tensor, chosen_M: Tensor) -> Tensor:
        """The tokens [T] with the chosen ones as the model is to see them: most as the mask, some
        as any other, some as they are (Devlin et al. 2019, section 3.1)."""
        device = tokens_T.device
        chance_M = torch.rand(len(chosen_M), device=device)
        ordinary = (~self.special).nonzero().flatten().to(device)
        others_M = ordinary[torch.randint(len(ordinary), (len(chosen_M),), device=device)]
        shown_M = torch.where(chance_M < SHOWN_AS_MASK + SHOWN_AS_ANOTHER, others_M, 0)
        shown_M = torch.where(chance_M < SHOWN_AS_MASK, self.mask_id, shown_M)
        kept = chance_M >= SHOWN_AS_MASK + SHOWN_AS_ANOTHER
        shown_M = torch.where(kept, tokens_T[chosen_M], shown_M)
        return tokens_T.index_copy(0, chosen_M, shown_M)


def _spans_begin(tokens_T: Tensor) -> Tensor:
    """[T] bool, drawn: at which tokens spans begin that lie end to end."""
    lengths = torch.empty(tokens_T.shape, device=tokens_T.device).geometric_(SPAN_ENDS)
    starts = lengths.clamp_(max=LONGEST_SPAN).long().cumsum(0).roll(1)
    starts[0] = 0
    begins = torch.zeros_like(tokens_T, dtype=torch.bool)
    begins[starts[starts < len(tokens_T)]] = True
    return begins
