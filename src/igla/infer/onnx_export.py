"""Decoders as ONNX graphs, under the names that optimum and ONNX Runtime GenAI use.

    input_ids [B, S], attention_mask [B, P + S], position_ids [B, S],
    past_key_values.N.key, .value [B, K, P, D]  →  logits [B, S, V], present.N.key, .value

Row s attends to all of the past, and to the rows up to itself in their physical order, where the
mask is 1; positions only turn queries and keys. That is also what a window of WeDLM needs.

Shape suffixes: B sequences, S rows, P past, T = B·S, N heads of queries, K heads of keys, D width.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from igla.errors import UserError
from igla.model.decoder import Decoder
from igla.model.decoder.position import alibi_slopes

MODEL_FILE = "model.onnx"


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter says of torch's insides and of packages that are not there."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


class _Graph(nn.Module):
    """A decoder over tensors of the past, in place of pages."""

    def __init__(self, model: Decoder):
        super().__init__()
        self.model = model

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        position_ids: Tensor,
        past: list[tuple[Tensor, Tensor]],
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        config = self.model.config
        batch, rows = input_ids.shape
        held = past[0][0].shape[2]
        physical = torch.arange(held + rows)
        behind_SP = (held + torch.arange(rows))[:, None] - physical
        seen_B1SP = (behind_SP >= 0)[None, None] & (attention_mask[:, None, None, :] > 0)
        present: list[tuple[Tensor, Tensor]] = []

        def attend(layer: int, query_TND: Tensor, key_TKD: Tensor, value_TKD: Tensor) -> Tensor:
            shape = (batch, rows, -1, config.head_dim)
            query, key, value = (
                x.reshape(shape).transpose(1, 2) for x in (query_TND, key_TKD, value_TKD)
            )
            key = torch.cat([past[layer][0], key], dim=2)
            value = torch.cat([past[layer][1], value], dim=2)
            present.append((key, value))
            window = config.window(layer)
            seen = seen_B1SP if window is None else seen_B1SP & (behind_SP < window)
            mask = torch.where(seen, 0.0, torch.finfo(torch.float32).min)
            if config.position == "alibi":
                mask = mask - alibi_slopes(config.heads)[:, None, None] * behind_SP.abs()
            # Spelt out: the exporter knows no grouped heads.
            group = config.heads // config.kv_heads
            out = F.scaled_dot_product_attention(
                query,
                key.repeat_interleave(group, dim=1),
                value.repeat_interleave(group, dim=1),
                attn_mask=mask,
            )
            return out.transpose(1, 2).reshape(batch * rows, config.heads, config.head_dim)

        states_TH = self.model(input_ids.reshape(-1), position_ids.reshape(-1), attend)
        return self.model.logits(states_TH).reshape(batch, rows, -1), present


def export_onnx(model: Decoder, folder: Path) -> Path:
    """Write the graph, and its weights beside it where they are large, into an existing folder.

    Raises UserError where onnxscript is missing (igla[onnx]).
    """
    try:
        import onnxscript  # noqa: F401
    except ImportError:
        raise UserError("Exporting needs onnxscript: pip install 'igla[onnx]'.") from None
    config = model.config
    if config.is_recurrent or config.experts:
        raise UserError("Only decoders with attention and one feed-forward part are exported.")
    batch, rows, past = (torch.export.Dim(name) for name in ("batch", "rows", "past"))
    pair_shape = ({0: batch, 2: past}, {0: batch, 2: past})
    # Sizes of the example that nothing else has, so that no dimension is taken for another.
    shape, layers = (2, config.kv_heads, 5, config.head_dim), range(config.layers)
    # A tensor each: the exporter takes one that comes twice for a single input.
    example = [(torch.zeros(shape), torch.zeros(shape)) for _ in layers]
    names = [f"{kind}.{n}.{part}" for n in layers for kind in ("{}",) for part in ("key", "value")]
    with torch.no_grad(), _quiet():
        program = torch.onnx.export(
            _Graph(model.eval()),
            (
                torch.zeros(2, 3, dtype=torch.int64),
                torch.ones(2, 8, dtype=torch.int64),
                torch.zeros(2, 3, dtype=torch.int64),
                example,
            ),
            dynamo=True,
            input_names=[
                "input_ids",
                "attention_mask",
                "position_ids",
                *(name.format("past_key_values") for name in names),
            ],
            output_names=["logits", *(name.format("present") for name in names)],
            dynamic_shapes={
                "input_ids": {0: batch, 1: rows},
                "attention_mask": {0: batch, 1: torch.export.Dim.DYNAMIC},
                "position_ids": {0: batch, 1: rows},
                "past": [pair_shape for _ in layers],
            },
            verbose=False,
        )
    assert program is not None
    target = folder / MODEL_FILE
    program.save(str(target))
    return target
