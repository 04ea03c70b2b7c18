"""Kernels that cannot be had: the model computes the same, and says why."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from igla.data.batch import pack
from igla.model.config import EncoderConfig
from igla.model.encoder import SequenceClassifier
from igla.ops import native
from igla.ops.native import Native

REASON = "from igla.ops import native; print(native.native().reason)"
DROPS = (
    "import torch; from igla.ops.dropout import dropout; print(dropout(torch.ones(99), 0.5).max())"
)


def loss_and_gradients(activation: str) -> list[Tensor]:
    config = EncoderConfig(
        vocab_size=60,
        hidden_size=24,
        layers=2,
        heads=3,
        intermediate_size=40,
        max_positions=80,
        activation=activation,
        dropout=0.0,
        attention_dropout=0.0,
    )
    random = torch.Generator().manual_seed(1)
    torch.manual_seed(0)
    model = SequenceClassifier(config, 3)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    lengths = (1, 80, 7, 33)
    batch = pack([torch.randint(60, (n,), generator=random).numpy() for n in lengths])
    loss = F.cross_entropy(model(batch), torch.tensor([0, 1, 2, 0]))
    loss.backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert len(gradients) == len(list(model.parameters()))
    return [loss.detach(), *gradients]


@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "relu"])
def test_the_model_computes_the_same_without_kernels(
    activation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = loss_and_gradients(activation)
    monkeypatch.setattr(native, "native", lambda: Native(None, "off"))
    for one, other in zip(compiled, loss_and_gradients(activation), strict=True):
        error = torch.linalg.vector_norm(one - other)
        assert error <= 1e-5 * torch.linalg.vector_norm(other)


def test_weights_of_another_type_are_not_misread(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    config = EncoderConfig(
        vocab_size=60, hidden_size=24, layers=1, heads=3, intermediate_size=40, max_positions=80
    )
    model = SequenceClassifier(config, 3).eval().double()
    batch = pack([torch.arange(9).numpy()])
    assert model.encoder.compute_dtype == torch.float32
    logits = model(batch)
    monkeypatch.setattr(native, "native", lambda: Native(None, "off"))
    torch.testing.assert_close(logits, model(batch), rtol=1e-5, atol=1e-5)


def compiler_of(folder: Path, script: str) -> str:
    path = folder / "cxx"
    path.write_text(script)
    path.chmod(0o755)
    return str(path)


def found(monkeypatch: pytest.MonkeyPatch, **environment: str) -> Native:
    """What a process with this environment finds."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    loaded: Native = native.native.__wrapped__()
    return loaded


def test_they_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(monkeypatch, IGLA_KERNELS="off") == Native(None, "IGLA_KERNELS=off")


@pytest.mark.parametrize("compiler", ["g++", "/there/is/none", ""])
def test_no_compiler_is_named(compiler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = found(monkeypatch, PATH="", CXX=compiler)
    assert loaded.library is None
    assert "there is no C++ compiler" in loaded.reason


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("#!/bin/sh\necho too old >&2\necho and more >&2\nexit 1\n", "failed: too old"),
        ("#!/bin/sh\nexit 1\n", "failed: no message"),
        ("#!/bin/sh\nprintf '\\374bel' >&2\nexit 1\n", "failed: "),
        ("#!/bin/sh\nkill -9 $$\n", "failed: "),
        ("#!/bin/sh\nexit 0\n", "No such file"),
        ("#!/bin/sh\nfor last; do :; done\necho nonsense > $last\n", "file too short"),
        ("no program at all\n", ""),
    ],
    ids=["words", "silence", "no_utf8", "killed", "writes_nothing", "nonsense", "no_program"],
)
def test_a_compiler_that_fails_is_quoted(
    script: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = compiler_of(tmp_path, script)
    monkeypatch.chdir(tmp_path)
    loaded = found(monkeypatch, CXX=compiler, IGLA_CACHE=str(tmp_path / "cache"))
    assert loaded.library is None
    assert reason in loaded.reason


@pytest.mark.parametrize("name", ["file/below", "x" * 300])
def test_without_a_cache_they_are_compiled_for_the_process(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("a file")
    cache = tmp_path / name
    loaded = found(monkeypatch, IGLA_CACHE=str(cache))
    assert loaded.library is not None
    assert "for this process alone" in loaded.reason
    assert str(cache) in loaded.reason


def test_a_process_whose_compiler_fails_computes_all_the_same(tmp_path: Path) -> None:
    compiler = compiler_of(tmp_path, "#!/bin/sh\nexit 1\n")
    environment = {**os.environ, "CXX": compiler, "IGLA_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-c", f"{DROPS}; {REASON}"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["tensor(2.)", f"{compiler} failed: no message"]


def test_two_processes_may_compile_at_once(tmp_path: Path) -> None:
    real = shutil.which("g++")
    compiler = compiler_of(tmp_path, f'#!/bin/sh\nexec {real} "$@" -O0\n')
    cache = tmp_path / "cache"
    environment = {**os.environ, "CXX": compiler, "IGLA_CACHE": str(cache)}
    command = [sys.executable, "-c", f"{REASON}; {DROPS}"]
    started = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in started:
        printed, _ = process.communicate(timeout=120)
        said, computed = printed.splitlines()
        assert said.startswith("compiled by cxx (kernels-")
        assert computed == "tensor(2.)"
    assert [path.suffix for path in cache.iterdir()] == [".so"]


def test_other_options_are_another_library() -> None:
    assert native._key(["g++"]) != native._key(["g++", "-mno-avx512f"])
