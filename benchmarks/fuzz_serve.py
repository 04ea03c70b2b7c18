"""Requests that nobody should send: does any of them make the server fail?

    python benchmarks/fuzz_serve.py --model RUN [--requests 10000] [--texts 2000]

First Schemathesis makes up requests, right and wrong, from the OpenAPI document, with one seed
after another until there were so many; then texts that break programs (serving/torture.py) go
through every route that takes a text, as JSON and, half letters included, as raw escapes. No answer
may be 5xx, and the server has to be well afterwards. Exit status 1 otherwise.
"""

import argparse
import asyncio
import json
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
from serving.processes import Running, igla_serve, running
from serving.torture import torture

from igla.serve.keys import add_key

OPTIONS = (
    "--checks not_a_server_error --max-examples {examples} --seed {seed} --request-timeout 60 "
    "--phases examples,coverage,fuzzing"
)
HALF_LETTERS = (r"\ud800", r"\udc00\ud800", r"a\udfffb", r"\ud83d")


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--model", type=Path, required=True)
    arguments.add_argument("--requests", type=int, default=10_000, help="by Schemathesis, at least")
    arguments.add_argument("--texts", type=int, default=2000)
    arguments.add_argument("--examples", type=int, default=100, help="of a route, by each seed")
    asked = arguments.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        keys = Path(scratch) / "keys.json"
        key = add_key(keys, "fuzz", ("score", "feedback", "admin"), None)
        with running(igla_serve(str(asked.model), "--keys", str(keys))) as server:
            made = by_schemathesis(server, key, Path(scratch), asked.requests, asked.examples)
            print(f"Schemathesis: {made:,} requests, none answered 5xx", flush=True)
            statuses = asyncio.run(by_texts(server, key, asked.texts))
            shown = ", ".join(f"{count:,} × {status}" for status, count in sorted(statuses.items()))
            print(f"texts: {shown}")
            if any(status >= 500 for status in statuses):
                sys.exit(1)
            if httpx.get(f"{server.address}/health").status_code != 200:
                sys.exit("The server is not well.")


def by_schemathesis(server: Running, key: str, scratch: Path, least: int, examples: int) -> int:
    """How many requests were made and passed; ends the program where one did not."""
    version = httpx.get(f"{server.address}/info").json()["model_sha"]
    config = scratch / "schemathesis.toml"
    names = {"path.name": "default", "path.version": version}
    lines = [f'"{name}" = "{value}"' for name, value in names.items()]
    config.write_text("\n".join(["[parameters]", *lines, ""]), encoding="utf-8")
    program = str(Path(sys.executable).with_name("schemathesis"))
    made = seed = 0
    while made < least:
        seed += 1
        command = [program, "--config-file", str(config), "run", f"{server.address}/openapi.json"]
        command += [
            *OPTIONS.format(examples=examples, seed=seed).split(),
            "-H",
            f"x-api-key: {key}",
        ]
        done = subprocess.run(command, capture_output=True, text=True, cwd=scratch)
        found = re.search(r"(\d+) generated, (\d+) passed", done.stdout)
        if done.returncode or found is None or found[1] != found[2]:
            sys.exit(done.stdout[-5000:])
        made += int(found[1])
        print(f"seed {seed}: {made:,} requests", flush=True)
    return made


def routes_of(text: str) -> dict[str, Any]:
    """A body for each route that takes a text."""
    comment = {"comment": {"text": text}}
    tensor = {"name": "text", "shape": [1], "datatype": "BYTES", "data": [text]}
    toxicity = {"TOXICITY": {"summaryScore": {"value": 1}}}
    return {
        "/predict": {"inputs": text},
        "/embed": {"inputs": text, "truncate": True},
        "/v1/moderations": {"input": text},
        "/v1/embeddings": {"input": text},
        "/v1alpha1/comments:analyze": comment
        | {"requestedAttributes": {"TOXICITY": {}}, "spanAnnotations": True},
        "/v1alpha1/comments:suggestscore": comment | {"attributeScores": toxicity},
        "/v2/models/default/infer": {"inputs": [tensor]},
        "/igla/v1/score": {"texts": [text, text]},
        "/igla/v1/explain": {"text": text, "method": "occlusion"},
    }


async def by_texts(server: Running, key: str, count: int) -> Counter[int]:
    """Statuses of the answers to texts in turn by all routes, four requests at a time."""
    bodies = [
        (path, json.dumps(body))
        for number, text in enumerate(torture(count))
        for place, (path, body) in enumerate(routes_of(text).items())
        if place == number % 9 or number < 40  # each kind by every route, mixtures by one
    ]
    bodies += [
        (path, json.dumps(body).replace("HALF", half))
        for half in HALF_LETTERS
        for path, body in routes_of("HALF").items()
    ]
    headers = {"x-api-key": key, "content-type": "application/json"}
    statuses: Counter[int] = Counter()
    waiting = iter(bodies)

    async def asking(client: httpx.AsyncClient) -> None:
        for path, body in waiting:
            answer = await client.post(f"{server.address}{path}", content=body, headers=headers)
            answer.json()
            statuses[answer.status_code] += 1
            if answer.status_code >= 500:
                print(f"{answer.status_code} {path} {body[:300]}: {answer.text}", flush=True)

    async with httpx.AsyncClient(timeout=120) as client:
        await asyncio.gather(*(asking(client) for _ in range(4)))
    return statuses


if __name__ == "__main__":
    main()
