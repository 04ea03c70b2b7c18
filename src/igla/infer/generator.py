"""A saved decoder with what writing by it needs: tokenizer, ends of texts, chat template."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from igla.adapt.folder import is_adapter
from igla.adapt.opened import open_decoder, whole_folder
from igla.errors import UserError
from igla.infer.backend import Backend
from igla.infer.constraint import Constraint, Grammars
from igla.infer.decoding import Autoregressive, Decoding
from igla.infer.engines import TORCH, Engine
from igla.infer.sampling import Sampling
from igla.infer.scheduler import Scheduler
from igla.infer.text_stream import TextStream
from igla.infer.wedlm import Wedlm
from igla.model.decoder import Decoder
from igla.model.decoder.families import FAMILIES
from igla.model.decoder.folder import WEDLM, outline_decoder
from igla.model.folder import read_json
from igla.ops.native import native
from igla.ops.products import prepare_to_answer
from igla.text.template import ChatTemplate
from igla.text.tokenizer import has_tokenizer, load_tokenizer

# Positions that are decided at once: on a processor a wider window costs more than it gives
# (docs/generating.md).
WINDOW = 4


@dataclass(frozen=True)
class Masks:
    """That a decoder has learned to fill masks, and how.

    size  of the blocks it has learned on: no window should be larger
    """

    token_id: int
    size: int


class Generator:
    """A decoder and its tokenizer.

    model     without its numbers where another engine than torch computes, by a file of its own
    folder    that they come from
    ends      tokens that end a text
    template  of conversations; None where the folder has none
    masks     None: it decodes one token after another
    engine    that computes
    window    how many positions are decided at once, of a decoder that fills masks
    """

    def __init__(
        self,
        model: Decoder,
        tokenizer: Tokenizer,
        ends: Sequence[int],
        template: ChatTemplate | None = None,
        masks: Masks | None = None,
        folder: Path = Path(),
        engine: Engine = TORCH,
    ):
        self.model = model
        self.tokenizer = tokenizer
        self.ends = frozenset(ends)
        self.template = template
        self.masks = masks
        self.folder = folder
        self.engine = engine
        self.window = WINDOW if masks is None else min(WINDOW, masks.size)

    @classmethod
    def load(cls, folder: Path, engine: Engine = TORCH, adapter: Path | None = None) -> "Generator":
        """Open a folder of Hugging Face, or of an adapter, for an engine.

        adapter  folder of one that the model in `folder` is to have, whichever base it names
        """
        if adapter is not None and not is_adapter(adapter):
            raise UserError(f"{adapter} is no adapter: it has no adapter_config.json.")
        if adapter is not None and engine.name != "torch":
            raise UserError(
                f"The {engine.name} engine computes what its file holds: export the adapter's "
                "folder itself."
            )
        base, own = (whole_folder(folder), folder) if adapter is None else (folder, adapter)
        prepare_to_answer()
        native()  # compiled now, if need be, and not with the first text
        model = open_decoder(own, base) if engine.name == "torch" else outline_decoder(base)
        # PEFT's own folders are often of the adapter alone.
        reading = own if has_tokenizer(own) else base
        tokenizer = load_tokenizer(reading)
        tokenizer.no_padding()
        tokenizer.no_truncation()
        learned = read_json(base / "config.json").get(WEDLM)
        masks = None if learned is None else Masks(learned["mask_token_id"], learned["block"])
        template = ChatTemplate.of_folder(own) or ChatTemplate.of_folder(base)
        return cls(model, tokenizer, ends_of(own, base), template, masks, folder, engine)

    @property
    def max_positions(self) -> int:
        return self.model.config.max_positions

    def decide_at_once(self, window: int) -> None:
        """Set the window; UserError for one that the decoder has not learned."""
        if self.masks is None:
            raise UserError("The model has not learned to fill masks: it has no window to set.")
        if not 1 <= window <= self.masks.size:
            raise UserError(
                f"A window of {window} is asked for; the model has learned blocks of "
                f"{self.masks.size}."
            )
        self.window = window

    @cached_property
    def grammars(self) -> Grammars:
        """Of the vocabulary, for texts that have to keep to one."""
        return Grammars(self.tokenizer, self.ends, self.model.config.vocab_size)

    def prompt(self, text: str) -> list[int]:
        """The tokens of a text to go on from, with what a text begins with."""
        return self.tokenizer.encode(text).ids

    def conversation(self, messages: Sequence[Mapping[str, Any]]) -> list[int]:
        """The tokens of messages, up to where the assistant is to go on."""
        if self.template is None:
            raise UserError("The model has no chat template: ask it to complete a text.")
        # The template writes what a text begins with.
        text = self.template.prompt(messages)
        try:
            text.encode()
        except UnicodeEncodeError:
            raise UserError("There is half a letter in them: a lone surrogate.") from None
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def backend(self, cache_tokens: int) -> Backend:
        """The engine, with a cache of so many tokens."""
        return self.engine.open(self.model, self.folder, cache_tokens)

    def scheduler(self, cache_tokens: int) -> Scheduler:
        """One of its own, over a cache of so many tokens."""
        return Scheduler(self.backend(cache_tokens))

    def decoding(
        self,
        sampling: Sampling,
        *,
        constraint: Constraint | None = None,
        logprobs: int | None = None,
        window: int | None = None,
    ) -> Decoding:
        """By WeDLM where the decoder has learned it, and nothing asks for one token after another:
        neither a constraint nor penalties for what was drawn before.

        window  in place of the generator's own
        """
        if self.masks is None or constraint is not None or sampling.adjusts:
            return Autoregressive(sampling, constraint, logprobs)
        return Wedlm(
            self.masks.token_id,
            sampling,
            window=window or self.window,
            islands=self.engine.scratch == "free",
            logprobs=logprobs,
        )

    def write(self, text: str, max_tokens: int) -> str:
        """What follows a text, token by token the likeliest."""
        prompt = self.prompt(text)
        scheduler = self.scheduler(len(prompt) + max_tokens)
        scheduler.submit(
            prompt, [self.decoding(Sampling())], max_tokens=max_tokens, stop_tokens=self.ends
        )
        stream, written = TextStream(self.tokenizer, prompt=prompt), ""
        while not scheduler.idle:
            for progress in scheduler.step():
                written += "".join(stream.push(decided.token) for decided in progress.tokens)
        return written + stream.finish()


def is_decoder(folder: Path) -> bool:
    """Whether a folder's config.json is of a family of decoders."""
    content = read_json(whole_folder(folder) / "config.json")
    return content.get("model_type") in FAMILIES


def ends_of(folder: Path, base: Path) -> list[int]:
    """Tokens that end a text: generation_config.json goes before config.json, as in transformers,
    and an adapter's before its base's."""
    for where in (folder, base):
        for name in ("generation_config.json", "config.json"):
            file = where / name
            found = read_json(file).get("eos_token_id") if file.is_file() else None
            if found is not None:
                return found if isinstance(found, list) else [found]
    raise UserError(f"{folder} names no eos_token_id: where its texts end is not known.")
