"""Requests made up from the OpenAPI document, right ones and wrong ones."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from igla.serve.keys import add_key

OPTIONS = (
    "--checks not_a_server_error --max-examples 40 --seed 1 --request-timeout 20 "
    "--phases examples,coverage,fuzzing"
)


def test_no_request_makes_the_server_fail(
    serve: Callable[..., Any], trained: Path, tmp_path: Path
) -> None:
    keys, config = tmp_path / "keys.json", tmp_path / "schemathesis.toml"
    key = add_key(keys, "fuzz", ("score", "admin"), None)
    with serve(str(trained), "--keys", str(keys)) as running:
        version = httpx.get(f"{running.address}/info").json()["model_sha"]
        config.write_text(
            f'[parameters]\n"path.name" = "default"\n"path.version" = "{version}"\n',
            encoding="utf-8",
        )
        command = [str(Path(sys.executable).with_name("schemathesis"))]
        command += ["--config-file", str(config), "run", f"{running.address}/openapi.json"]
        command += [*OPTIONS.split(), "-H", f"x-api-key: {key}"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stdout[-3000:]
        made = re.search(r"(\d+) generated, (\d+) passed", done.stdout)
        assert made is not None and int(made[1]) > 500 and made[1] == made[2]
        answer = httpx.post(
            f"{running.address}/predict", json={"inputs": "дом"}, headers={"x-api-key": key}
        )
        assert answer.status_code == 200
