"""What all tests share."""

import os

# Tiny products gain nothing from threads, and where tests share a processor with other work they
# lose much; set before torch is imported, and for the processes that tests start as well.
os.environ["OMP_NUM_THREADS"] = "1"

import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

import httpx
import pytest

from igla.cache import cache_root
from igla.ops import native
from igla.recipe import Recipe, load_recipe
from igla.terminal import plain_console
from igla.train.log import MetricsLog
from igla.train.loop import Step
from igla.train.run import train

# Two tests' caches must not meet, and the user's must not be touched.
SHARED = Path(__file__).parent / "../../shared/data"


# A training that takes a second: 96 rows that a one-layer model can learn, in float32.
KIND = "добрый милый славный хороший приятный умный".split()
RUDE = "глупый злой гадкий плохой мерзкий тупой".split()
NOUNS = "дом человек день разговор город ответ вопрос путь".split()

SMALL = (
    "model.size=tiny model.layers=1 model.hidden_size=32 model.intermediate_size=64 "
    "train.batch_size=16 train.precision=float32 train.steps=6 optim.learning_rate=3e-3"
).split()


def _write_rows(path: Path, rows: int, rude_share: float = 0.5) -> Path:
    """Comments that are rude by their adjectives."""
    chance = random.Random(0)
    lines = ["text,label"]
    for index in range(rows):
        rude = (index * rude_share) % 1 + rude_share >= 1
        words = [chance.choice(RUDE if rude else KIND), chance.choice(NOUNS)]
        words += [chance.choice(NOUNS) for _ in range(chance.randint(0, 9))]
        chance.shuffle(words)
        lines.append(f"{' '.join(words)} {index},{'rude' if rude else 'kind'}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(autouse=True, scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    # Compiled kernels are named by what they were compiled from, and compiling takes half a minute.
    for compiled in cache_root().glob("kernels-*.so"):
        shutil.copy(compiled, folder)
    os.environ["IGLA_CACHE"] = str(folder)
    return folder


@pytest.fixture(scope="session")
def kernels(cache: Path) -> None:
    """Without a compiler there is nothing to test; with one the kernels must compile."""
    if not shutil.which("g++"):
        pytest.skip("there is no C++ compiler on this machine")
    loaded = native.native()
    assert loaded.library is not None, loaded.reason


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the repository; without it the test is skipped."""
    if not SHARED.is_dir():
        pytest.skip("the real data (../shared/data) are not on this machine")
    return SHARED


@pytest.fixture(scope="session")
def write_rows() -> Callable[..., Path]:
    """Writes so many comments that are rude by their adjectives."""
    return _write_rows


@pytest.fixture(scope="session")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _write_rows(tmp_path_factory.mktemp("rows") / "rows.csv", 96)


@pytest.fixture
def small(rows: Path) -> Callable[..., Recipe]:
    """The small recipe with some settings changed."""
    return lambda *changes: load_recipe(None, [f"data.source={rows}", *SMALL, *changes])


@pytest.fixture(scope="session")
def trained(rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small run that has learned its rows."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    recipe = load_recipe(None, [f"data.source={rows}", *SMALL, "train.steps=60"])
    train(recipe, folder, plain_console(quiet=True))
    return folder


@pytest.fixture
def train_killed(monkeypatch: pytest.MonkeyPatch) -> Callable[[Recipe, Path, int], None]:
    """Trains by a recipe in a folder until what would log the given step dies instead."""

    class Killed(Exception):
        pass

    def run(recipe: Recipe, folder: Path, last: int) -> None:
        logged = MetricsLog.step

        def die(self: MetricsLog, step: Step) -> None:
            if step.step == last:
                raise Killed
            logged(self, step)

        with monkeypatch.context() as patched, pytest.raises(Killed):
            patched.setattr(MetricsLog, "step", die)
            train(recipe, folder, plain_console(quiet=True))

    return run


@dataclass(frozen=True)
class Running:
    """A server: its address, its process, and what it has said."""

    address: str
    process: subprocess.Popen[str]
    said: IO[str]


Serve = Callable[..., AbstractContextManager[Running]]


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def serving(*words: str, command: str = "serve") -> Iterator[Running]:
    """An `igla serve`, or another server of igla's, with these words, until the end; it has to end
    well."""
    port = free_port()
    line = [sys.executable, "-m", "igla", *command.split(), *words, "--port", str(port)]
    if "--precision" not in words:
        line += ["--precision", "float32"]  # which the tests compute by themselves
    kind = "https" if "--tls-key" in words else "http"
    address = f"{kind}://127.0.0.1:{port}"
    with tempfile.TemporaryFile("w+") as said:  # not a pipe, which would fill up
        process = subprocess.Popen(line, stderr=said, text=True, env=os.environ)
        try:
            wait_for(f"{address}/health", process)
            yield Running(address, process, said)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=60)
            said.seek(0)
            told = said.read()
    assert process.returncode in (0, -signal.SIGTERM), told
    assert "Traceback" not in told


def wait_for(address: str, process: subprocess.Popen[str]) -> None:
    for _ in range(1800):
        assert process.poll() is None, "the server has ended"
        try:
            if httpx.get(address, timeout=1, verify=False).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise AssertionError("the server does not start")


@pytest.fixture(scope="session")
def serve() -> Serve:
    """Starts servers."""
    return serving


@pytest.fixture(scope="session")
def serve_gate() -> Serve:
    """Starts gates."""
    return partial(serving, command="gate serve")


@pytest.fixture(scope="session")
def server(trained: Path) -> Iterator[str]:
    """The address of a server of the small model."""
    with serving(str(trained)) as running:
        yield running.address


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """The URL of a PostgreSQL of the tests' own: a new cluster, at a loopback port, run by an
    ordinary user."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not programs:
        pytest.skip("needs PostgreSQL's server (Debian: postgresql)")
    folder = Path(tempfile.mkdtemp(prefix="igla-postgresql-"))
    # It refuses to run as root; Debian's package has made a user for it.
    user: dict[str, Any] = {"user": "postgres", "group": "postgres"} if os.getuid() == 0 else {}
    (folder / "password").write_text("a word\n")
    if user:
        for path in (folder, folder / "password"):
            shutil.chown(path, "postgres")
    port, cluster = free_port(), folder / "cluster"
    made = [programs[-1] / "initdb", "-D", cluster, "-U", "igla", "-E", "UTF8", "--locale=C",
            "-N", "-A", "scram-sha-256", f"--pwfile={folder}/password"]  # fmt: skip
    subprocess.run(made, check=True, capture_output=True, cwd=folder, **user)
    run = [programs[-1] / "postgres", "-D", cluster, "-p", str(port)]
    run += ["-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={folder}"]
    with (folder / "said").open("w") as said:
        process = subprocess.Popen(run, stdout=said, stderr=said, cwd=folder, **user)
    try:
        for _ in range(600):
            assert process.poll() is None, (folder / "said").read_text()
            asked = [programs[-1] / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]
            if subprocess.run(asked).returncode == 0:  # it listens before it can be spoken to
                break
            time.sleep(0.1)
        yield f"postgresql://igla:a%20word@127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGQUIT)  # without a last checkpoint: nothing is to be kept
        process.wait(timeout=60)
        shutil.rmtree(folder)


@pytest.fixture
def new_database(postgresql: str) -> str:
    """The URL of an empty database."""
    import psycopg

    name = f"t{time.monotonic_ns()}"
    with psycopg.connect(f"{postgresql}/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return f"{postgresql}/{name}"
