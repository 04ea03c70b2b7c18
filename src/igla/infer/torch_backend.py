"""The torch engine: igla's own decoder over the paged pools, on the processor or a GPU.

Shape suffixes: T rows, N heads of queries, K heads of keys and values, D width of a head, S rows of
one sequence, P what they attend to.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from igla.errors import UserError
from igla.infer.backend import BackendStats, Rows, check_rows
from igla.infer.cache import OutOfBlocks, PagedKVCache, needed
from igla.infer.native_decoder import NativeDecoder, why_not
from igla.infer.recurrent import RecurrentMemory, States
from igla.model.decoder import Decoder, DecoderConfig
from igla.model.decoder.position import alibi_slopes
from igla.model.parts import Linear
from igla.ops.weights import Precision, pack_weight, packable

# Tokens that the cache holds when nobody says otherwise.
CACHE_TOKENS = 16_384


class TorchBackend:
    """A decoder with a paged cache, and states of its layers of linear cost if it has any.

    precision     of the weights: float32, bf16, int8 (a scale an output) or int4 (a scale for each
                  32 inputs; the head keeps 8 bits). None: what the model computes in
    cache_tokens  what the pools hold; their memory is taken when it is first written to
    compiled      False: torch code in any case

    On the processor the whole decoder is one compiled kernel, with float32 activations. Where that
    cannot be (`said` tells why) it is torch code; weights of 8 and 4 bits are then rounded the same
    and computed with in float32, which saves nothing.
    """

    name = "torch"
    scratch = "free"

    def __init__(
        self,
        model: Decoder,
        *,
        precision: Precision | None = None,
        cache_tokens: int = CACHE_TOKENS,
        compiled: bool = True,
    ):
        self.model = model.eval().requires_grad_(False)
        if precision is None:
            precision = "bf16" if model.compute_dtype == torch.bfloat16 else "float32"
        self.precision = precision
        config = model.config
        if config.experts and precision in ("int8", "int4"):
            raise UserError(f"A mixture of experts is not computed in {precision}; bf16 is.")
        reason = why_not(model) if compiled else "it is asked for"
        if reason and precision == "bf16":
            model.compute_dtype = torch.bfloat16
        self.vocab_size = config.vocab_size
        self.max_positions: int | None = config.max_positions
        self.device = model.words.weight.device
        self._cache = PagedKVCache(
            needed(cache_tokens),
            layers=config.layers,
            kv_heads=config.kv_heads,
            head_dim=config.head_dim,
            dtype=model.compute_dtype if reason else torch.float32,
            device=self.device,
            share=not config.is_recurrent,  # a state belongs to one length of a text
        )
        self._states = States(self._cache) if config.is_recurrent else None
        self._stats = BackendStats()
        self._native = None if reason else NativeDecoder(model, precision, self._cache)
        if reason and precision in ("int8", "int4"):
            round_weights(model, precision)
        self.said = f"{precision}, " + (
            f"computed by torch, which is slower: {reason}" if reason else "by compiled kernels"
        )

    def forward(
        self, tokens: np.ndarray, positions: np.ndarray, sequences: Sequence[Rows]
    ) -> Tensor:
        check_rows(self, tokens, positions, sequences)
        if self._states is not None:
            tokens, positions, sequences = self._states.complete(tokens, positions, sequences)
        reserve_all(self._cache, sequences)
        wanted = wanted_rows(sequences)
        with self._stats.stage("compute"), torch.inference_mode():
            if self._native is not None:
                logits = self._native(tokens, positions, sequences, wanted)
            else:
                logits = self._by_torch(tokens, positions, sequences, wanted)
        commit_all(self._cache, tokens, sequences)
        self._stats.count(sequences)
        return logits

    def _by_torch(
        self, tokens: np.ndarray, positions: np.ndarray, sequences: Sequence[Rows], wanted: Tensor
    ) -> Tensor:
        attend = PagedAttention(self.model.config, self._cache, positions, sequences)
        placed = (torch.from_numpy(each).to(self.device) for each in (tokens, positions))
        if self._states is None:
            states_TH = self.model(*placed, attend)
        else:
            memory = RecurrentMemory(attend, self._states, sequences)
            states_TH = self.model(*placed, memory)
            memory.keep()
        return self.model.logits(states_TH[wanted.to(self.device)]).float().cpu()

    def kv_cache(self) -> PagedKVCache:
        return self._cache

    def stats(self) -> BackendStats:
        return replace(self._stats, cache=self._cache.use())


def round_weights(model: Decoder, precision: Precision) -> None:
    """Weights as packing them would leave them, in place. A head that is the table of words is left
    as it is."""
    for module in model.modules():
        if isinstance(module, Linear) and packable(module.weight):
            of_head = module is model.head and precision == "int4"
            kept = pack_weight(module.weight, None, "int8" if of_head else precision)
            module.weight.data.copy_(kept.dense())


def reserve_all(cache: PagedKVCache, sequences: Sequence[Rows]) -> None:
    """Room for all committed rows of a forward, or OutOfBlocks and nothing changed."""
    asked = sum(cache.blocks_for(rows.sequence, rows.committed) for rows in sequences)
    if asked > cache.available:
        raise OutOfBlocks(f"a forward needs {asked} blocks; {cache.available} are left")
    for rows in sequences:
        cache.reserve(rows.sequence, rows.committed)


def commit_all(cache: PagedKVCache, tokens: np.ndarray, sequences: Sequence[Rows]) -> None:
    """Tell the cache what a forward has written."""
    start = 0
    for rows in sequences:
        if rows.committed:
            cache.commit(rows.sequence, tokens[start : start + rows.committed].tolist())
        start += rows.count


def wanted_rows(sequences: Sequence[Rows]) -> Tensor:
    """Numbers of the rows of which logits are wanted."""
    found: list[int] = []
    stop = 0
    for rows in sequences:
        stop += rows.count
        found += range(stop - rows.wanted, stop)
    return torch.tensor(found, dtype=torch.int64)


@dataclass(frozen=True)
class _Span:
    """A sequence's rows in the forward.

    start, stop  their numbers; the first `committed` are written to the last of `slots`
    behind       [S, P] how far what there is lies behind each row, in physical order
    """

    start: int
    stop: int
    committed: int
    slots: Tensor
    behind: Tensor


class PagedAttention:
    """Attend for a decoder: each sequence's rows to its pages, and to one another as Rows says.

    Sequences are computed one after another, each by torch's own attention under an explicit mask:
    is_causal would align it with the first key, where what is cached belongs before all rows. A
    window counts rows in their physical order; ALiBi's distances are between positions.
    """

    def __init__(
        self,
        config: DecoderConfig,
        cache: PagedKVCache,
        positions: np.ndarray,
        sequences: Sequence[Rows],
    ):
        self._config = config
        self._cache = cache
        self._spans = []
        self._slopes_N = alibi_slopes(config.heads) if config.position == "alibi" else None
        self._distances: list[Tensor] = []
        device, start = cache.keys[0].device, 0
        for rows in sequences:
            length, stop = cache.length(rows.sequence), start + rows.count
            last_S = torch.arange(length, length + rows.count)[:, None]
            seen_P = torch.arange(length + rows.count)
            slots = cache.slots(rows.sequence, 0, length + rows.committed)
            behind_SP = (last_S - seen_P).to(device)
            self._spans.append(_Span(start, stop, rows.committed, slots, behind_SP))
            if self._slopes_N is not None:
                mine_S = torch.from_numpy(positions[start:stop])
                all_P = torch.cat([torch.arange(length), mine_S])
                self._distances.append((mine_S[:, None] - all_P).abs().to(device))
            start = stop

    def __call__(self, layer: int, query_TND: Tensor, key_TKD: Tensor, value_TKD: Tensor) -> Tensor:
        keys, values = self._cache.keys[layer], self._cache.values[layer]
        out_TND = torch.empty_like(query_TND)
        for index, span in enumerate(self._spans):
            both_KPD = []
            for pool, new_TKD in ((keys, key_TKD), (values, value_TKD)):
                new_KSD = new_TKD[span.start : span.stop].transpose(0, 1)
                if span.committed:
                    fresh = span.slots[len(span.slots) - span.committed :]
                    pool.index_copy_(1, fresh, new_KSD[:, : span.committed])
                kept_KPD = pool.index_select(1, span.slots)
                both_KPD.append(torch.cat([kept_KPD, new_KSD[:, span.committed :]], dim=1))
            query_NSD = query_TND[span.start : span.stop].transpose(0, 1)
            key_KPD, value_KPD = both_KPD
            out_NSD = F.scaled_dot_product_attention(
                query_NSD[None],
                key_KPD[None],
                value_KPD[None],
                attn_mask=self._mask(layer, index),
                enable_gqa=True,
            )[0]
            out_TND[span.start : span.stop] = out_NSD.transpose(0, 1)
        return out_TND

    def _mask(self, layer: int, index: int) -> Tensor:
        """[S, P] bool, or [N, S, P] that is added to the scores."""
        behind_SP, window = self._spans[index].behind, self._config.window(layer)
        seen_SP = behind_SP >= 0
        if window is not None:
            seen_SP &= behind_SP < window
        if self._slopes_N is None:
            return seen_SP
        slopes_N = self._slopes_N.to(behind_SP.device, self._cache.keys[0].dtype)
        scores_NSP = -slopes_N[:, None, None] * self._distances[index]
        return scores_NSP.masked_fill(~seen_SP, -torch.inf)
