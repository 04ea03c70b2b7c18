"""What a decoder makes of a packed batch in training."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from igla.data.batch import PackedBatch
from igla.model.decoder.attention import packed_causal
from igla.model.decoder.decoder import Decoder
from igla.model.decoder.experts import Routings
from igla.ops import matmul


def packed_states(model: Decoder, batch: PackedBatch, routings: Routings | None = None) -> Tensor:
    """States [T, H] of the tokens, of which each sees itself and those before it in its sequence.

    routings  gets how a mixture of experts has chosen
    """
    # Filler would count as a token that experts are chosen for.
    exact = bool(model.config.experts) or matmul.are_native(model.compute_dtype)
    filled = batch if exact else _filled(batch)
    attend = packed_causal(filled, model.config)
    states: Tensor = model(filled.tokens, filled.positions, attend, routings)
    return states[: len(batch.tokens)]


def _filled(batch: PackedBatch) -> PackedBatch:
    """The batch with further sequences, none longer than its longest, up to a usual size."""
    tokens = len(batch.tokens)
    extra = matmul.usual_rows(tokens) - tokens
    device = batch.cu_seqlens.device
    starts = torch.arange(tokens, tokens + extra, batch.max_seqlen, device=device)
    end = torch.tensor([tokens + extra], device=device)
    return replace(
        batch,
        tokens=F.pad(batch.tokens, (0, extra)),
        positions=F.pad(batch.positions, (0, extra)),
        cu_seqlens=torch.cat([batch.cu_seqlens[:-1], starts, end]),
    )
