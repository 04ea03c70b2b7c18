"""What `igla generate` does."""

import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from igla.errors import UserError
from igla.infer.backend import Backend
from igla.infer.beams import beam_search
from igla.infer.classifier import model_folder
from igla.infer.constraint import Constraint
from igla.infer.decoding import Decoding
from igla.infer.engines import TORCH, Engine
from igla.infer.generator import Generator
from igla.infer.sampling import Sampling
from igla.infer.scheduler import Scheduler
from igla.infer.speculative import DraftModel, PromptLookup, Speculative, SpeculativeStats
from igla.infer.text_stream import TextStream
from igla.infer.torch_backend import TorchBackend
from igla.model.decoder import load_decoder
from igla.terminal import plain_console


@dataclass(frozen=True)
class Wanted:
    """What is to be written, and how.

    max_tokens   None: 256, or as many as the model has positions for
    logit_bias   TOKEN=BIAS each, TOKEN a text that is one token or a token's number
    stop         strings that end a text
    count        texts that are drawn
    beams        0: drawn token by token; else the best of beam search, `count` of so many
    json_schema  file of a schema that the text has to keep to; "any": any JSON object
    regex        pattern that the text has to match
    draft        folder of a small model that guesses ahead
    lookup       whether the prompt's own words are guessed from
    window       how many positions are decided at once, of a decoder that fills masks; None: its
                 own
    adapter      folder of one that the model is to have; None: as the model's folder is
    """

    sampling: Sampling
    max_tokens: int | None = None
    logit_bias: Sequence[str] = ()
    stop: Sequence[str] = ()
    count: int = 1
    beams: int = 0
    json_schema: str | None = None
    regex: str | None = None
    draft: str | None = None
    lookup: bool = False
    chat: bool = False
    engine: Engine = TORCH
    window: int | None = None
    adapter: str | None = None


@dataclass
class _Written:
    """Of all texts: tokens, and seconds until the first and in all."""

    tokens: int = 0
    prompt: int = 0
    first: float = 0.0
    seconds: float = 0.0


def generate(where: str, text: str | None, wanted: Wanted) -> None:
    """Write what follows a text, as it comes, to stdout; figures to stderr."""
    if text is None and sys.stdin.isatty():
        raise UserError("Give a prompt as an argument or through stdin.")
    text = sys.stdin.read() if text is None else text
    folder = model_folder(where)
    adapter = None if wanted.adapter is None else model_folder(wanted.adapter)
    generator = Generator.load(folder, wanted.engine, adapter)
    if wanted.logit_bias:
        biases = _biases(generator, wanted.logit_bias)
        wanted = replace(wanted, sampling=replace(wanted.sampling, logit_bias=biases))
    if wanted.window is not None:
        _check_window(wanted)
        generator.decide_at_once(wanted.window)
    prompt = _prompt(generator, text, wanted)
    max_tokens = _limit(generator, prompt, wanted)
    # Blocks are of 16, and a shared one is copied.
    backend = generator.backend(
        (len(prompt) + max_tokens + 32) * max(wanted.count, wanted.beams or 1)
    )
    if wanted.beams:
        written = _write_beams(generator, backend, prompt, max_tokens, wanted)
        extra = ""
    else:
        written, extra = _write(generator, backend, prompt, max_tokens, wanted)
    plain_console(stderr=True).print(_figures(written, backend) + extra + f"; {backend.said}")


def _check_window(wanted: Wanted) -> None:
    grammar = wanted.json_schema is not None or wanted.regex is not None
    guesses = wanted.draft is not None or wanted.lookup
    if grammar or guesses or wanted.beams or wanted.sampling.adjusts:
        raise UserError(
            "A window goes with no grammar, guesses, beams, repetition penalty or bias."
        )


def _biases(generator: Generator, given: Sequence[str]) -> dict[int, float]:
    """Biases by token; UserError where one does not say which, or by how much."""
    found = {}
    for one in given:
        word, _, number = one.rpartition("=")
        try:
            bias = float(number)
        except ValueError:
            bias = math.nan
        if not word or not math.isfinite(bias):
            raise UserError(f"--logit-bias {one!r} is not of the form TOKEN=NUMBER.")
        found[_token(generator, word)] = bias
    return found


def _token(generator: Generator, word: str) -> int:
    """The token of a number, or of a text."""
    if word.isdecimal():
        return int(word)
    ids = generator.tokenizer.encode(word, add_special_tokens=False).ids
    if len(ids) == 1:
        return int(ids[0])
    parts = ", ".join(f"{token} ({generator.tokenizer.decode([token])!r})" for token in ids)
    raise UserError(f"--logit-bias: {word!r} is {len(ids)} tokens and not one: {parts or 'none'}.")


def _prompt(generator: Generator, text: str, wanted: Wanted) -> list[int]:
    if wanted.chat:
        return generator.conversation([{"role": "user", "content": text}])
    return generator.prompt(text)


def _limit(generator: Generator, prompt: Sequence[int], wanted: Wanted) -> int:
    room = generator.max_positions - len(prompt)
    if room < 1:
        raise UserError(
            f"The prompt has {len(prompt):,} tokens; the model knows "
            f"{generator.max_positions:,} positions."
        )
    return min(256, room) if wanted.max_tokens is None else wanted.max_tokens


def _constraint(generator: Generator, wanted: Wanted) -> Constraint | None:
    if wanted.json_schema is not None and wanted.regex is not None:
        raise UserError("Give a JSON schema or a regular expression, not both.")
    if wanted.json_schema == "any":
        return generator.grammars.json_object()
    if wanted.json_schema is not None:
        schema = Path(wanted.json_schema).read_text(encoding="utf-8")
        return generator.grammars.json_schema(schema)
    if wanted.regex is not None:
        return generator.grammars.regex(wanted.regex)
    return None


def _decodings(
    generator: Generator, wanted: Wanted, stats: SpeculativeStats, room: int
) -> list[Decoding]:
    constraint = _constraint(generator, wanted)
    guesses = wanted.lookup or wanted.draft is not None
    if guesses and constraint is not None:
        raise UserError("A text that is held to a grammar is not guessed ahead.")
    if wanted.lookup and wanted.draft is not None:
        raise UserError("Guess by a draft model or by lookup, not both.")
    draft = None if wanted.draft is None else _draft(generator, wanted.draft, room)
    decodings: list[Decoding] = []
    for index in range(wanted.count):
        sampling = wanted.sampling.of_text(index)
        if not guesses:
            own = None if constraint is None else constraint.copy()
            decodings.append(generator.decoding(sampling, constraint=own))
        else:
            drafter = PromptLookup() if draft is None else DraftModel(draft, sampling.of_text(7919))
            decodings.append(Speculative(drafter, sampling, stats=stats))
    return decodings


def _draft(generator: Generator, where: str, room: int) -> Backend:
    model = load_decoder(model_folder(where))
    ours = generator.model.config
    if model.config.vocab_size != ours.vocab_size:
        raise UserError(
            f"The draft {where} has a vocabulary of {model.config.vocab_size:,} tokens and the "
            f"model one of {ours.vocab_size:,}: it has to be the same one."
        )
    return TorchBackend(model, cache_tokens=room)


def _write(
    generator: Generator, backend: Backend, prompt: list[int], max_tokens: int, wanted: Wanted
) -> tuple[_Written, str]:
    stats, written = SpeculativeStats(), _Written(prompt=len(prompt))
    room = (len(prompt) + max_tokens + 32) * wanted.count
    scheduler = Scheduler(backend)
    decodings = _decodings(generator, wanted, stats, room)
    start = time.perf_counter()
    request = scheduler.submit(prompt, decodings, max_tokens=max_tokens, stop_tokens=generator.ends)
    streams = [TextStream(generator.tokenizer, wanted.stop, prompt) for _ in decodings]
    texts = [""] * len(decodings)
    while not scheduler.idle:
        for progress in scheduler.step():
            written.first = written.first or time.perf_counter() - start
            stream = streams[progress.index]
            for decided in progress.tokens:
                written.tokens += 1
                texts[progress.index] += _show(stream.push(decided.token), wanted)
            finished = progress.finished is not None
            if stream.stopped_by is not None and not finished:
                scheduler.cancel(request, progress.index)
            elif finished:
                texts[progress.index] += _show(stream.finish(), wanted)
    written.seconds = time.perf_counter() - start
    if wanted.count == 1:
        print()
    else:
        _print_all(texts)
    extra = ""
    if stats.guessed:
        extra = f"; {stats.kept} of {stats.guessed} guesses kept"
    return written, extra


def _write_beams(
    generator: Generator, backend: Backend, prompt: list[int], max_tokens: int, wanted: Wanted
) -> _Written:
    if wanted.json_schema or wanted.regex or wanted.draft or wanted.lookup or wanted.stop:
        raise UserError("Beam search goes with no grammar, no guesses and no stop strings.")
    if wanted.sampling != Sampling(seed=wanted.sampling.seed):
        raise UserError("Beam search draws nothing: it goes with no setting of sampling.")
    if wanted.count > wanted.beams:
        raise UserError(f"{wanted.count} texts need as many beams; there are {wanted.beams}.")
    start = time.perf_counter()
    found = beam_search(
        backend, prompt, beams=wanted.beams, max_tokens=max_tokens, ends=generator.ends
    )[: wanted.count]
    texts = []
    for beam in found:
        stream = TextStream(generator.tokenizer, prompt=prompt)
        texts.append("".join(map(stream.push, beam.tokens)) + stream.finish())
    if wanted.count == 1:
        print(texts[0])
    else:
        _print_all(texts)
    seconds = time.perf_counter() - start
    return _Written(sum(len(beam.tokens) for beam in found), len(prompt), 0.0, seconds)


def _show(piece: str, wanted: Wanted) -> str:
    """A piece of a text, printed at once if it is the only one that is written."""
    if wanted.count == 1 and piece:
        print(piece, end="", flush=True)
    return piece


def _print_all(texts: Sequence[str]) -> None:
    for number, text in enumerate(texts, 1):
        print(f"--- {number}\n{text}")


def _figures(written: _Written, backend: Backend) -> str:
    stats = backend.stats()
    after = written.tokens - 1 if written.first else written.tokens
    rate = after / max(written.seconds - written.first, 1e-9)
    parts = [f"{written.tokens:,} tokens, {rate:,.0f} a second"]
    if written.first:
        parts.append(f"the first after {written.first * 1000:,.0f} ms")
    parts.append(f"{written.prompt:,} in the prompt; {stats.forwards:,} forwards")
    return ", ".join(parts)
