"""The files of deploy/, checked as far as that goes without their programs."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
NAMES = re.compile(r"\bigla_[a-z_]+")


@pytest.fixture(scope="module")
def told(server: str) -> set[str]:
    """The names of a server's series, after a request."""
    httpx.post(f"{server}/predict", json={"inputs": "дом"})
    lines = httpx.get(f"{server}/metrics").text.splitlines()
    return {match[0] for line in lines if (match := NAMES.match(line))}


def test_the_dashboard_shows_what_there_is(told: set[str]) -> None:
    dashboard = json.loads((DEPLOY / "grafana.json").read_text(encoding="utf-8"))
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert len(asked) >= len(dashboard["panels"]) > 0
    assert set(NAMES.findall(" ".join(asked))) <= told
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def test_the_alerts_ask_for_what_there_is(told: set[str]) -> None:
    content = yaml.safe_load((DEPLOY / "alerts.yaml").read_text(encoding="utf-8"))
    [rules] = [group["rules"] for group in content["groups"] if group["name"] == "igla"]
    assert all(rule["alert"] and rule["annotations"]["summary"] for rule in rules)
    named = set(NAMES.findall(" ".join(rule["expr"] for rule in rules)))
    assert named and named <= told
    assert all(rule["expr"].count("(") == rule["expr"].count(")") for rule in rules)


def known_options() -> set[str]:
    command = [sys.executable, "-m", "igla", "serve", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(re.findall(r"--[a-z-]+", done.stdout))


def test_the_unit_starts_what_there_is() -> None:
    unit = (DEPLOY / "igla.service").read_text(encoding="utf-8")
    start = re.search(r"^ExecStart=(.*)$", unit, re.MULTILINE)
    assert start is not None
    words = shlex.split(start[1])
    assert words[1] == "serve"
    assert {word for word in words if word.startswith("--")} <= known_options()
    if shutil.which("systemd-analyze"):
        command = ["systemd-analyze", "verify", str(DEPLOY / "igla.service")]
        said = subprocess.run(command, capture_output=True, text=True).stderr
        wrong = [line for line in said.splitlines() if "igla.service" in line]
        assert all("is not executable" in line for line in wrong)  # /opt/igla is not there


def test_the_image_copies_and_starts_what_there_is() -> None:
    lines = (DEPLOY / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    said = [line.split(maxsplit=1) for line in lines if line and not line.startswith("#")]
    copied = [path for word, rest in said if word == "COPY" for path in rest.split()[:-1]]
    assert copied and all((ROOT / path).exists() for path in copied)
    words = {word: json.loads(rest) for word, rest in said if word in ("ENTRYPOINT", "CMD")}
    assert words["ENTRYPOINT"] == ["igla", "serve"]
    assert {word for word in words["CMD"] if word.startswith("--")} <= known_options()
    assert said[-3][0] != "USER" and ["USER", "igla"] in said
