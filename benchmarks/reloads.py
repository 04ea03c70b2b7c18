"""Hot reloads under load: is each answer that of the version it names?

    python benchmarks/reloads.py --model RUN [--other RUN] [--times 1000] [--connections 8]

Two models take turns under one name while the connections ask for scores without pause. Each
answer has to be 200, and its score that of the version it names, computed beforehand by each model
alone. Without --other the second model is the first with the opposite opinion (BERT's names).
Prints the sums and the memory; exit status 1 where an answer was wrong.
"""

import argparse
import asyncio
import shutil
import sys
import tempfile
from pathlib import Path

import httpx
from safetensors.numpy import load_file, save_file
from serving.processes import Running, igla_serve, running

from igla.infer.classifier import Classifier, model_folder
from igla.serve.keys import add_key

TEXTS = ["глупый гадкий дом", "добрый славный дом", "Ты кто такой вообще?", "Спасибо!"]
TOLERANCE = 1e-4


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--model", type=Path, required=True)
    arguments.add_argument("--other", type=Path)
    arguments.add_argument("--times", type=int, default=1000)
    arguments.add_argument("--connections", type=int, default=8)
    asked = arguments.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        first = model_folder(asked.model)
        second = opposite(first, Path(scratch))
        if asked.other is not None:
            second = model_folder(asked.other)
        keys = Path(scratch) / "keys.json"
        headers = {"x-api-key": add_key(keys, "reloads", ("score", "admin"), None)}
        words = [str(first), "--keys", str(keys), "--precision", "float32"]
        with running(igla_serve(*words)) as server:
            before = server.megabytes
            of_version, answers = asyncio.run(
                reload(server, [first, second], headers, asked.times, asked.connections)
            )
            after = server.megabytes
        right = {version: scores(folder) for version, folder in of_version.items()}
    wrong = sum(
        abs(score - right[version][text]) > TOLERANCE if version in right else 1
        for version, text, score in answers
    )
    versions = len({version for version, _, _ in answers})
    print(
        f"{asked.times} reloads, {len(answers):,} answers of {versions} versions, {wrong} wrong; "
        f"memory {before:.0f} MB before, {after:.0f} MB after"
    )
    sys.exit(1 if wrong or not answers else 0)


def opposite(folder: Path, scratch: Path) -> Path:
    """A copy of a model with the signs of its last layer turned."""
    other = scratch / "opposite"
    shutil.copytree(folder, other)
    (other / "manifest.json").unlink(missing_ok=True)
    weights = load_file(other / "model.safetensors")
    for name in ("classifier.weight", "classifier.bias"):
        weights[name] = -weights[name]
    save_file(weights, other / "model.safetensors", {"format": "pt"})
    return other


def scores(folder: Path) -> list[float]:
    """The last class's probability of each text, by a model alone."""
    return [float(one) for one in Classifier.load(folder).probabilities(TEXTS)[:, -1]]


async def reload(
    server: Running,
    folders: list[Path],
    headers: dict[str, str],
    times: int,
    connections: int,
) -> tuple[dict[str, Path], list[tuple[str, int, float]]]:
    """The folder of each version, and version, text and score of each answer."""
    found: list[tuple[str, int, float]] = []
    of_version: dict[str, Path] = {}
    ended = False
    url = f"{server.address}/igla/v1"

    async def asking(client: httpx.AsyncClient, text: int) -> None:
        while not ended:
            text = (text + 1) % len(TEXTS)
            answer = await client.post(
                f"{url}/score", json={"texts": [TEXTS[text]]}, headers=headers
            )
            if answer.status_code != 200:
                raise SystemExit(f"{answer.status_code}: {answer.text}")
            content = answer.json()
            label = content["results"][0]["labels"][-1]
            found.append((content["version"], text, label["probability"]))

    async with httpx.AsyncClient(timeout=120) as client:
        listed = (await client.get(f"{url}/models", headers=headers)).json()
        of_version[listed["models"][0]["version"]] = folders[0]
        askers = [asyncio.ensure_future(asking(client, one)) for one in range(connections)]
        for turn in range(1, times + 1):
            folder = folders[turn % 2]
            load = {"folder": str(folder)}
            answer = await client.post(f"{url}/models/default/load", json=load, headers=headers)
            if answer.status_code != 200:
                raise SystemExit(f"{answer.status_code}: {answer.text}")
            of_version[answer.json()["version"]] = folder
        ended = True
        await asyncio.gather(*askers)
    return of_version, found


if __name__ == "__main__":
    main()
