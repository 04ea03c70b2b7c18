"""Which of the two explanations of a score is truer: occlusion or integrated gradients.

    python benchmarks/explain.py --run RUN [--rows 300]

Takes comments of the test part of RUN of five words and more, and explains the probability of the
class that the model gives. An explanation is true if the words that it puts first are those by
which the model decides (Petsiuk, Das & Saenko 2018):

deletion   words are taken from the text, the most important first; the area under the probability
           over the share of words taken: the lower, the better
insertion  words are put into the text without words, the most important first: the higher, the
           better

Words are taken by a mask, as occlusion itself takes them, and by leaving them out, which is new to
both. A random order shows what order alone is worth. Prints a table with the difference of
the two and its interval by a bootstrap over the comments, and writes all to OUTPUT/explain.json.
"""

import argparse
import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np

from igla.data.batch import pack
from igla.data.dataset import load_dataset
from igla.data.split import TEST
from igla.infer.scoring import score
from igla.recipe import load_recipe
from igla.serve.engine import Engine
from igla.serve.explain import Explanation, Method, Words, explain, without, words_of
from igla.serve.models import Served, open_model

METHODS: tuple[Method, ...] = get_args(Method)
RANDOM = "random"
Hide = Callable[[Served, Words, list[int]], np.ndarray]


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--run", type=Path, required=True)
    arguments.add_argument("--rows", type=int, default=300, help="comments at most")
    arguments.add_argument("--output", type=Path, default=Path("runs/explain"))
    asked = arguments.parse_args()
    asked.output.mkdir(parents=True, exist_ok=True)
    served = open_model(asked.run, "default", "float32")
    texts = texts_of(asked.run, served, asked.rows)
    if not texts:
        raise SystemExit(f"No text of the test part of {asked.run} has five words.")
    found = asyncio.run(measure(served, texts))
    (asked.output / "explain.json").write_text(json.dumps(found) + "\n", encoding="utf-8")
    print("\n".join(lines(found)))


def texts_of(run: Path, served: Served, most: int) -> list[str]:
    """Test texts of five words and more that the model reads whole."""
    recipe = load_recipe(run / "recipe.yaml")
    dataset = load_dataset(recipe.data, recipe.train.seed)
    texts = dataset.texts(dataset.part(TEST))
    words = [words_of(served.encoder, text) for text in texts]
    fits = [
        text
        for text, one in zip(texts, words, strict=True)
        if len(one.places) >= 5 and len(one.ids) < served.encoder.max_length
    ]
    return fits[:most]


async def measure(served: Served, texts: list[str]) -> dict[str, Any]:
    """Of each text and method the areas [deletion, insertion] by each way of hiding, and more."""
    engine = Engine(1_000_000, lambda done: None)
    engine.start()
    chance = np.random.default_rng(0)
    areas: dict[str, dict[str, list[Any]]] = {
        way: {name: [] for name in (*METHODS, RANDOM)} for way in WAYS
    }
    seconds = dict.fromkeys(METHODS, 0.0)
    gaps, seen = [], 0
    for text in texts:
        words = words_of(served.encoder, text)
        seen += len(words.places)
        order = {RANDOM: chance.permutation(len(words.places))}
        wanted = 0
        for method in METHODS:
            start = time.perf_counter()
            found = await explain(engine, served, text, method)
            seconds[method] += time.perf_counter() - start
            wanted = int(found.probabilities.argmax())
            order[method] = np.argsort(-found.effects[:, wanted], kind="stable")
            if method == "gradients":
                gaps.append(gap(served, words, found, wanted))
        for way, hide in WAYS.items():
            for name, one in order.items():
                areas[way][name].append(areas_of(served, words, one, wanted, hide))
    await engine.close()
    return {
        "texts": len(texts),
        "words": seen / len(texts),
        "areas": areas,
        "milliseconds": {name: value / len(texts) * 1000 for name, value in seconds.items()},
        "gap of gradients": float(np.mean(gaps)),
    }


def gap(served: Served, words: Words, found: Explanation, wanted: int) -> float:
    """How far integrated gradients are from their sum: the text's probability less that of its
    words all masked."""
    [nothing] = probabilities(served, [masked(served, words, [*range(len(words.places))])])
    difference = found.probabilities[wanted] - nothing[wanted]
    return float(abs(found.effects[:, wanted].sum() - difference))


def areas_of(
    served: Served, words: Words, order: np.ndarray, wanted: int, hide: Hide
) -> tuple[float, float]:
    """Areas under a class's probability while words are taken, and while they are put in."""
    count = len(order)
    ranks = order.tolist()
    taken = [hide(served, words, ranks[:number]) for number in range(count + 1)]
    given = [hide(served, words, ranks[number:]) for number in range(count + 1)]
    curve = probabilities(served, taken + given)[:, wanted]
    deletion, insertion = (float(np.trapezoid(one, dx=1 / count)) for one in np.split(curve, 2))
    return deletion, insertion


def masked(served: Served, words: Words, hidden: list[int]) -> np.ndarray:
    return without(served.encoder, words.ids, [at for one in hidden for at in words.places[one]])


def left_out(served: Served, words: Words, hidden: list[int]) -> np.ndarray:
    return np.delete(words.ids, [at for one in hidden for at in words.places[one]])


WAYS: dict[str, Hide] = {"mask": masked, "left out": left_out}


def probabilities(served: Served, sequences: list[np.ndarray]) -> np.ndarray:
    lengths = np.array([len(one) for one in sequences])
    model = served.classifier.model
    device = next(model.parameters()).device
    logits = score(model, lengths, lambda rows: pack([sequences[row] for row in rows]), device)
    return served.classifier.rule.probabilities(logits)


def lines(found: dict[str, Any]) -> list[str]:
    """The means as a Markdown table, and what else was measured."""
    table = [
        f"{found['texts']} comments of {found['words']:.0f} words on average",
        "",
        "| words are | order by | deletion (lower) | insertion (higher) |",
        "|---|---|---|---|",
    ]
    for way, each in found["areas"].items():
        for name, areas in each.items():
            deletion, insertion = np.mean(areas, axis=0)
            table.append(f"| {way} | {name} | {deletion:.4f} | {insertion:.4f} |")
        differences = np.array(each["gradients"]) - np.array(each["occlusion"])
        cells = [interval(differences, column) for column in (0, 1)]
        table.append(f"| {way} | gradients − occlusion | {cells[0]} | {cells[1]} |")
    times = ", ".join(f"{name} {value:.1f} ms" for name, value in found["milliseconds"].items())
    missed = f"gradients miss what they should sum to by {found['gap of gradients']:.4f}"
    return [*table, "", f"{times} a comment; {missed}"]


def interval(differences: np.ndarray, column: int) -> str:
    """Mean of a column [N] and its 95 % interval, by 2,000 draws of the comments."""
    values = differences[:, column]
    draws = np.random.default_rng(0).integers(0, len(values), (2000, len(values)))
    low, high = np.percentile(values[draws].mean(axis=1), [2.5, 97.5])
    return f"{values.mean():+.4f} [{low:+.4f}, {high:+.4f}]"


if __name__ == "__main__":
    main()
