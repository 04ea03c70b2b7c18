"""The llama.cpp engine: a GGUF file through llama-cpp-python's calls for batches.

llama.cpp keeps keys and values itself. The paged cache here is the book-keeping alone, and tells
what a sequence is to hold; before each forward llama.cpp's sequences are brought to that
(infer/llamacpp_sequences.py). It masks by position, so that rows of a sequence have to come in
ascending order without gaps.
"""

import ctypes
import weakref
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from igla.errors import UserError
from igla.infer.backend import BackendStats, Rows, check_rows
from igla.infer.cache import BLOCK, PagedKVCache, needed
from igla.infer.llamacpp_sequences import Held, Sequences
from igla.infer.torch_backend import CACHE_TOKENS, commit_all, reserve_all

# Rows that llama.cpp computes at once, and scratch rows that a forward may have.
_BATCH = 512
_ERROR = 4  # of ggml_log_level


class LlamaCppBackend:
    """A GGUF file in llama.cpp, with keys and values in float32 and without flash attention.

    file           model.gguf
    max_positions  that the model knows; None: no limit
    threads        None: as many as torch has

    A sequence whose keys and values llama.cpp has had to give up is computed anew when it goes on;
    its rows are counted again.
    """

    name = "llamacpp"
    scratch = "ascending"

    def __init__(
        self,
        file: Path,
        *,
        max_positions: int | None = None,
        cache_tokens: int = CACHE_TOKENS,
        threads: int | None = None,
    ):
        self._library = library()
        blocks = needed(cache_tokens)
        self._model, self._context = _open(
            self._library, file, blocks * BLOCK + _BATCH, threads or torch.get_num_threads()
        )
        weakref.finalize(self, _close, self._library, self._model, self._context)
        self._batch = _Batch(self._library, _BATCH)
        self.vocab_size = int(
            self._library.llama_vocab_n_tokens(self._library.llama_model_get_vocab(self._model))
        )
        self.max_positions = max_positions
        self._cache = PagedKVCache(blocks)
        memory = self._library.llama_get_memory(self._context)
        self._sequences = Sequences(self._library, memory, self._cache)
        self._stats = BackendStats()
        described = ctypes.create_string_buffer(128)
        self._library.llama_model_desc(self._model, described, 128)
        # It tells sizes of known models alone; of others it writes a question mark.
        self.said = f"llama.cpp, {described.value.decode().replace(' ?B', '')}"

    def forward(
        self, tokens: np.ndarray, positions: np.ndarray, sequences: Sequence[Rows]
    ) -> Tensor:
        check_rows(self, tokens, positions, sequences)
        if sum(rows.scratch for rows in sequences) > _BATCH:
            raise UserError(f"The llamacpp engine takes {_BATCH} scratch rows in a forward.")
        reserve_all(self._cache, sequences)
        with self._stats.stage("prepare"):
            held = self._sequences.hold([rows.sequence for rows in sequences])
            laid, again = self._laid_out(tokens, positions, sequences, held)
        try:
            with self._stats.stage("compute"):
                logits = self._computed(laid)
        except BaseException:
            self._sequences.clear()  # what is in them is not known
            raise
        self._settle(tokens, sequences, held)
        commit_all(self._cache, tokens, sequences)
        self._stats.count(sequences)
        self._stats.rows += again
        return logits

    def kv_cache(self) -> PagedKVCache:
        return self._cache

    def stats(self) -> BackendStats:
        return replace(self._stats, cache=self._cache.use())

    def _laid_out(
        self,
        tokens: np.ndarray,
        positions: np.ndarray,
        sequences: Sequence[Rows],
        held: Sequence[Held],
    ) -> tuple[np.ndarray, int]:
        """What llama.cpp is to compute [T, 4] int32: token, position, its number of the sequence,
        whether logits are wanted; and how many of these rows are computed anew."""
        parts, start, again = [], 0, 0
        for rows, one in zip(sequences, held, strict=True):
            known, length = len(one.tokens), self._cache.length(rows.sequence)
            if known < length:
                again += length - known
                one.tokens = self._cache.tokens(rows.sequence)
                parts.append(_rows(one.tokens[known:], range(known, length), one.number, 0))
            stop = start + rows.count
            parts.append(_rows(tokens[start:stop], positions[start:stop], one.number, rows.wanted))
            start = stop
        return np.concatenate([np.empty((0, 4), dtype=np.int32), *parts]), again

    def _computed(self, laid: np.ndarray) -> Tensor:
        """Logits [·, V] of the rows that want them."""
        _lines.clear()
        found = [np.empty((0, self.vocab_size), dtype=np.float32)]
        for start in range(0, len(laid), _BATCH):
            part = laid[start : start + _BATCH]
            self._batch.fill(part)
            while status := self._library.llama_decode(self._context, self._batch.described):
                # 1: no room for keys and values. Others' are given up, one by one.
                if status != 1 or not self._sequences.give_one_up():
                    raise RuntimeError(f"llama.cpp cannot compute {len(part)} rows: {_said()}")
            if wanted := int(part[:, 3].sum()):
                address = self._library.llama_get_logits(self._context)
                logits = np.ctypeslib.as_array(address, shape=(wanted, self.vocab_size))
                found.append(logits.copy())
        return torch.from_numpy(np.concatenate(found))

    def _settle(self, tokens: np.ndarray, sequences: Sequence[Rows], held: Sequence[Held]) -> None:
        """Note what is committed, and forget scratch rows."""
        start = 0
        for rows, one in zip(sequences, held, strict=True):
            one.tokens += tokens[start : start + rows.committed].tolist()
            start += rows.count
            if rows.scratch:
                self._sequences.cut(one, len(one.tokens))


class _Batch:
    """llama_batch, of which numpy writes the arrays."""

    def __init__(self, library: Any, size: int):
        self._arrays = [np.zeros(size, dtype=np.int32) for _ in range(3)]
        self._token, self._position, self._sequence = self._arrays
        self._ones = np.ones(size, dtype=np.int32)
        self._wanted = np.zeros(size, dtype=np.int8)
        # A row's sequences are a list of its own, here of one.
        begin, step = self._sequence.ctypes.data, self._sequence.itemsize
        self._lists = begin + step * np.arange(size, dtype=np.uintp)
        fields = dict(library.llama_batch._fields_)

        def pointer(array: np.ndarray, name: str) -> Any:
            return ctypes.cast(array.ctypes.data, fields[name])

        self.described = library.llama_batch(
            n_tokens=0,
            token=pointer(self._token, "token"),
            embd=None,
            pos=pointer(self._position, "pos"),
            n_seq_id=pointer(self._ones, "n_seq_id"),
            seq_id=pointer(self._lists, "seq_id"),
            logits=pointer(self._wanted, "logits"),
        )

    def fill(self, rows: np.ndarray) -> None:
        """Take rows of token, position, sequence and whether logits are wanted [·, 4]."""
        count = len(rows)
        for column, array in enumerate(self._arrays):
            array[:count] = rows[:, column]
        self._wanted[:count] = rows[:, 3]
        self.described.n_tokens = count


def _rows(
    tokens: Sequence[int] | np.ndarray,
    positions: Sequence[int] | np.ndarray,
    number: int,
    wanted: int,
) -> np.ndarray:
    """Rows of one sequence [·, 4], of which the last `wanted` want logits."""
    rows = np.zeros((len(tokens), 4), dtype=np.int32)
    rows[:, 0], rows[:, 1], rows[:, 2] = tokens, positions, number
    rows[len(rows) - wanted :, 3] = 1
    return rows


_lines: list[str] = []  # what llama.cpp has said of errors since they were last cleared


@cache
def library() -> Any:
    """llama-cpp-python's module of llama.cpp's functions, told to be quiet."""
    try:
        import llama_cpp
    except ImportError:
        raise UserError(
            "The llamacpp engine needs llama-cpp-python, which compiles for some minutes: "
            "pip install 'igla[llamacpp]'."
        ) from None

    def note(level: int, text: bytes, _: object) -> None:
        if level == _ERROR:
            _lines.append(text.decode("utf-8", "replace").strip())

    module: Any = llama_cpp
    module.igla_log = module.llama_log_callback(note)  # held as long as it may be called
    module.llama_log_set(module.igla_log, ctypes.c_void_p())
    module.llama_backend_init()
    return module


def _said() -> str:
    return _lines[0] if _lines else "no reason given"  # the others follow from it


def _open(library: Any, file: Path, cells: int, threads: int) -> tuple[Any, Any]:
    """The model of a file and a context over so many keys and values."""
    if not file.is_file():
        raise UserError(f"There is no {file}: igla export MODEL --format gguf makes it.")
    _lines.clear()
    model = library.llama_model_load_from_file(
        str(file).encode(), library.llama_model_default_params()
    )
    if not model:
        raise UserError(f"{file} cannot be opened by llama.cpp: {_said()}")
    settings = library.llama_context_default_params()
    settings.n_ctx = cells
    settings.n_batch = settings.n_ubatch = _BATCH
    settings.n_seq_max = library.llama_max_parallel_sequences()
    settings.n_threads = settings.n_threads_batch = threads
    settings.type_k = settings.type_v = library.GGML_TYPE_F32
    settings.flash_attn_type = library.LLAMA_FLASH_ATTN_TYPE_DISABLED
    settings.kv_unified = True  # sequences share the keys and values of what they begin with
    context = library.llama_init_from_model(model, settings)
    if not context:
        library.llama_model_free(model)
        raise UserError(f"llama.cpp has no room for {cells:,} keys and values: {_said()}")
    return model, context


def _close(library: Any, model: Any, context: Any) -> None:
    library.llama_free(context)
    library.llama_model_free(model)
