"""igla and transformers' Trainer in turn on the same rows: speed, memory, share of the limit."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from igla.sealed import write_durably
from minilm.rows import Prepared, prepare
from minilm.tables import median, spread
from minilm.workers import Answer, ask

# Weights of MiniLM's matrices but for its embeddings: each is multiplied with each token three
# times in a step, at two operations a time.
MATRIX_WEIGHTS = 6 * (4 * 384 * 384 + 2 * 384 * 1536)
GROUPED = {"train_sampling_strategy": "group_by_length"}


@dataclass(frozen=True)
class Contestant:
    """Who trains how. precision: of igla; None: Trainer with these arguments."""

    name: str
    precision: str | None = None
    arguments: tuple[tuple[str, Any], ...] = ()
    attention: str = "sdpa"


IGLA, DEFAULT = "igla bf16", "Trainer default"  # whom all are compared with: these always run
CONTESTANTS = (
    Contestant(IGLA, precision="bf16"),
    Contestant("igla float32", precision="float32"),
    Contestant(DEFAULT),
    Contestant("Trainer bf16", arguments=(("bf16", True),)),
    Contestant("Trainer bf16, grouped", arguments=(("bf16", True), *GROUPED.items())),
    Contestant(
        "Trainer bf16, grouped, eager attention",
        arguments=(("bf16", True), *GROUPED.items()),
        attention="eager",
    ),
    Contestant(
        "Trainer bf16, grouped, torch.compile",
        arguments=(("bf16", True), ("torch_compile", True), *GROUPED.items()),
    ),
)

OPTIONAL = [one.name for one in CONTESTANTS if one.name not in (IGLA, DEFAULT)]


def measure(
    data: Path,
    folder: Path,
    *,
    steps: int,
    warmup: int,
    pairs: int,
    settings: list[str],
    without: Collection[str] = (),
) -> dict[str, Any]:
    """All contestants, one after another, as many times as there are pairs."""
    contestants = [one for one in CONTESTANTS if one.name not in without]
    prepared = prepare(data, folder, steps, settings)
    tokens = round(prepared.tokens_per_batch)
    found: dict[str, list[Answer]] = {one.name: [] for one in contestants}
    limits: dict[str, list[float]] = {"bfloat16": [], "float32": []}
    for pair in range(pairs):
        for dtype, library in (("bfloat16", "highest"), ("float32", "medium")):
            job = {"tokens": tokens, "dtype": dtype, "library": library}
            limits[dtype].append(ask("minilm.limit_worker", job)["gflops"])
        first = pair % len(contestants)
        for one in contestants[first:] + contestants[:first]:
            answer = run(one, prepared, folder / f"{one.name}-{pair}", warmup)
            # Steps that were not counted may have had longer or shorter rows: all are measured in
            # rows of the average length.
            answer["rate"] = answer["tokens"] / answer["seconds"] / prepared.tokens_per_row
            found[one.name].append(answer)
            print(f"pair {pair + 1}: {one.name}: {answer['rate']:.1f} samples/s", flush=True)
    return summary(found, {name: median(values) for name, values in limits.items()}, prepared)


def run(one: Contestant, prepared: Prepared, output: Path, warmup: int) -> Answer:
    """One training by one contestant."""
    recipe = prepared.recipe
    if one.precision is not None:
        written = output.with_suffix(".yaml")
        write_durably(written, recipe.replace(train__precision=one.precision).to_yaml())
        return ask(
            "minilm.igla_worker", {"recipe": str(written), "output": str(output), "warmup": warmup}
        )
    job = {
        "folder": str(prepared.folder),
        "vocab_size": prepared.vocab_size,
        "batch_size": recipe.train.batch_size,
        "steps": recipe.train.steps,
        "warmup": warmup,
        "dropout": recipe.model.dropout,
        "seed": recipe.train.seed,
        "base": None,
        "arguments": dict(one.arguments),
        "attention": one.attention,
        "evaluate": False,
    }
    return ask("minilm.trainer_worker", job)


def summary(
    found: dict[str, list[Answer]], limits: dict[str, float], prepared: Prepared
) -> dict[str, Any]:
    """Medians, ratios pair by pair against the default and the best Trainer, and shares."""
    tuned = max(
        (name for name in found if name.startswith("Trainer")),
        key=lambda name: median([answer["rate"] for answer in found[name]]),
    )
    most = {
        dtype: gflops * 1e9 / (6 * MATRIX_WEIGHTS * prepared.tokens_per_row)
        for dtype, gflops in limits.items()
    }
    contestants = {}
    for name, answers in found.items():
        rates = [answer["rate"] for answer in answers]
        contestants[name] = {
            "samples_per_second": spread(rates),
            "tokens_per_second": spread([rate * prepared.tokens_per_row for rate in rates]),
            "share_of_bf16_limit": median(rates) / most["bfloat16"],
            "peak_memory": median([answer["peak_memory"] for answer in answers]),
            "against_default": spread(ratios(answers, found[DEFAULT])),
            "against_tuned": spread(ratios(answers, found[tuned])),
        }
    return {
        "rows": prepared.rows,
        "tokens_per_row": prepared.tokens_per_row,
        "vocab_size": prepared.vocab_size,
        "limit_gflops": limits,
        "limit_samples_per_second": most,
        "tuned": tuned,
        "waited_for_data": median([a["waited"] / a["seconds"] for a in found[IGLA]]),
        "contestants": contestants,
    }


def ratios(answers: list[Answer], others: list[Answer]) -> list[float]:
    """Of the rates, pair by pair."""
    return [mine["rate"] / other["rate"] for mine, other in zip(answers, others, strict=True)]


def lines(result: dict[str, Any]) -> list[str]:
    """The result as a Markdown table."""
    table = [
        "| | samples/s | tokens/s | × default | × tuned | of the bf16 limit | peak memory |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, one in result["contestants"].items():
        table.append(
            f"| {name} | {one['samples_per_second']['median']:.1f} "
            f"| {one['tokens_per_second']['median']:,.0f} "
            + "".join(
                f"| {one[key]['median']:.2f} [{one[key]['least']:.2f}, {one[key]['most']:.2f}] "
                for key in ("against_default", "against_tuned")
            )
            + f"| {one['share_of_bf16_limit']:.0%} | {one['peak_memory'] / 1e9:.1f} GB |"
        )
    limit, most = result["limit_gflops"], result["limit_samples_per_second"]
    table += [
        "",
        f"{result['rows']:,} rows of {result['tokens_per_row']:.1f} tokens on average, vocabulary "
        f"{result['vocab_size']:,}; tuned is {result['tuned']}; the limit is "
        f"{limit['bfloat16']:.0f} GFLOP/s in bf16 ({most['bfloat16']:.0f} samples/s) and "
        f"{limit['float32']:.0f} in float32 ({most['float32']:.0f}); igla waited for data "
        f"{result['waited_for_data']:.2%} of the time",
    ]
    return table
