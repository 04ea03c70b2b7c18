"""The ONNX Runtime engine: an exported decoder with any of its execution providers.

The graph takes the past as tensors and gives it back longer (infer/onnx_export.py), so pages are
gathered before each forward and new rows are written back after it.

Shape suffixes: K heads of keys and values, P past, S rows, D width of a head, B sequences.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from igla.errors import UserError
from igla.infer.backend import BackendStats, Rows, check_rows
from igla.infer.cache import PagedKVCache, needed
from igla.infer.torch_backend import CACHE_TOKENS, commit_all, reserve_all

if TYPE_CHECKING:
    import onnxruntime

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "directml": "DmlExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
}


class OnnxBackend:
    """A graph of optimum's names in ONNX Runtime.

    file           model.onnx
    max_positions  that the model knows; None: no limit
    provider       a name in PROVIDERS, or one of ONNX Runtime's own
    threads        None: as many as torch has

    Sequences with equally many rows are computed together. Scratch rows may stand anywhere.
    """

    name = "onnx"
    scratch = "free"

    def __init__(
        self,
        file: Path,
        *,
        max_positions: int | None = None,
        provider: str = "cpu",
        cache_tokens: int = CACHE_TOKENS,
        threads: int | None = None,
    ):
        self._session = _session(file, provider, threads or torch.get_num_threads())
        inputs = {one.name: one for one in self._session.get_inputs()}
        if "past_key_values.0.key" not in inputs or "position_ids" not in inputs:
            raise UserError(
                f"{file} is no decoder with a cache: it has no input past_key_values.0.key and "
                "position_ids. igla export MODEL --format onnx makes one."
            )
        layers = sum(name.endswith(".key") for name in inputs)
        _, kv_heads, _, head_dim = inputs["past_key_values.0.key"].shape
        outputs = {one.name: one for one in self._session.get_outputs()}
        self.vocab_size = int(outputs["logits"].shape[-1])
        self.max_positions: int | None = max_positions
        self._cache = PagedKVCache(
            needed(cache_tokens), layers=layers, kv_heads=kv_heads, head_dim=head_dim
        )
        self._layers = layers
        self._stats = BackendStats()
        self.said = f"ONNX Runtime, {self._session.get_providers()[0]}"

    def forward(
        self, tokens: np.ndarray, positions: np.ndarray, sequences: Sequence[Rows]
    ) -> Tensor:
        check_rows(self, tokens, positions, sequences)
        reserve_all(self._cache, sequences)
        starts = np.cumsum([0, *(rows.count for rows in sequences)])
        logits: list[np.ndarray] = [np.empty(0)] * len(sequences)
        for count in sorted({rows.count for rows in sequences} - {0}):
            alike = [index for index, rows in enumerate(sequences) if rows.count == count]
            taken = np.stack([np.arange(starts[index], starts[index + 1]) for index in alike])
            group = [sequences[index] for index in alike]
            found = self._together(tokens[taken], positions[taken], group)
            for index, rows, one in zip(alike, group, found, strict=True):
                logits[index] = one[rows.count - rows.wanted :]
        commit_all(self._cache, tokens, sequences)
        self._stats.count(sequences)
        wanted = [one for one in logits if len(one)]
        joined = np.concatenate(wanted) if wanted else np.empty((0, self.vocab_size), np.float32)
        return torch.from_numpy(joined)

    def kv_cache(self) -> PagedKVCache:
        return self._cache

    def stats(self) -> BackendStats:
        return replace(self._stats, cache=self._cache.use())

    def _together(
        self, tokens_BS: np.ndarray, positions_BS: np.ndarray, sequences: Sequence[Rows]
    ) -> np.ndarray:
        """Logits [B, S, V] of sequences with S rows each, whose committed rows are written."""
        cache = self._cache
        lengths = [cache.length(rows.sequence) for rows in sequences]
        past = max(lengths)
        mask = np.ones((len(sequences), past + tokens_BS.shape[1]), dtype=np.int64)
        for row, length in zip(mask, lengths, strict=True):
            row[: past - length] = 0  # shorter ones are filled up from the left
        feeds = {"input_ids": tokens_BS, "attention_mask": mask, "position_ids": positions_BS}
        with self._stats.stage("gather"):
            slots = [
                cache.slots(rows.sequence, 0, length + rows.committed)
                for rows, length in zip(sequences, lengths, strict=True)
            ]
            for layer in range(self._layers):
                for part, pools in (("key", cache.keys), ("value", cache.values)):
                    name = f"past_key_values.{layer}.{part}"
                    feeds[name] = _gathered(pools[layer], slots, lengths)
        with self._stats.stage("compute"):
            logits, *present = self._session.run(None, feeds)
        with self._stats.stage("scatter"):
            for index, rows in enumerate(sequences):
                if not rows.committed:
                    continue
                new = slots[index][lengths[index] :]
                for place, tensor_BKPD in enumerate(present):
                    pool = (cache.keys, cache.values)[place % 2][place // 2]
                    kept = tensor_BKPD[index, :, past : past + rows.committed]
                    pool.index_copy_(1, new, torch.from_numpy(kept))
        return logits


def _gathered(pool: Tensor, slots: Sequence[Tensor], lengths: Sequence[int]) -> np.ndarray:
    """What sequences hold of a pool [B, K, P, D], shorter ones filled up from the left."""
    if len(slots) == 1:
        return pool.index_select(1, slots[0][: lengths[0]])[None].numpy()
    past = max(lengths)
    held = torch.zeros(len(slots), pool.shape[0], past, pool.shape[2])
    for one, where, length in zip(held, slots, lengths, strict=True):
        one[:, past - length :] = pool.index_select(1, where[:length])
    return held.numpy()


def _session(file: Path, provider: str, threads: int) -> "onnxruntime.InferenceSession":
    try:
        import onnxruntime
    except ImportError:
        raise UserError("The onnx engine needs ONNX Runtime: pip install 'igla[onnx]'.") from None
    if not file.is_file():
        raise UserError(f"There is no {file}: igla export MODEL --format onnx makes it.")
    name = PROVIDERS.get(provider, provider)
    available = onnxruntime.get_available_providers()
    if name not in available:
        raise UserError(
            f"This ONNX Runtime has no {name}; it has {', '.join(available)}. "
            "Others come with other packages, as onnxruntime-gpu."
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    # Threads that wait sleep: a server without requests costs no processor.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(str(file), options, providers=[name])
    except Exception as error:  # the runtime raises classes of its own
        first = (str(error).splitlines() or ["no reason given"])[0]
        raise UserError(f"{file} cannot be opened by ONNX Runtime: {first}") from None
