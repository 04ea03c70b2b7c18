"""Requests to the gate made up from the OpenAPI document, right ones and wrong ones."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from igla.serve.keys import add_key

OPTIONS = (
    "--include-tag Gate --checks not_a_server_error --max-examples 40 --seed 1 "
    "--request-timeout 20 --phases examples,coverage,fuzzing"
)


def test_no_request_makes_the_gate_fail(
    serve_gate: Callable[..., Any], trained: Path, tmp_path: Path
) -> None:
    keys = tmp_path / "keys.json"
    key = add_key(keys, "fuzz", ("score", "feedback"), None)
    words = ["--log", f"sqlite:///{tmp_path}/gate.db", "--keys", str(keys)]
    with serve_gate(str(trained), *words) as running:
        command = [str(Path(sys.executable).with_name("schemathesis")), "run"]
        command += [f"{running.address}/openapi.json", *OPTIONS.split(), "-H", f"x-api-key: {key}"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stdout[-3000:]
        made = re.search(r"(\d+) generated, (\d+) passed", done.stdout)
        assert made is not None and int(made[1]) > 200 and made[1] == made[2]
        answer = httpx.get(f"{running.address}/v1/gate/status", headers={"x-api-key": key})
        assert answer.status_code == 200
