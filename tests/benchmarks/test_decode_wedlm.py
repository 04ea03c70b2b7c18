"""A small run of the benchmark of WeDLM, and the tasks that it asks."""

import json
import subprocess
import sys
from pathlib import Path

import torch

from igla.model.decoder import Decoder, DecoderConfig, save_decoder
from igla.text.tokenizer import TextEncoder, add_mask, save_tokenizer, train_tokenizer

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "decode_wedlm.py"


def test_decodings_are_measured_beside_the_autoregressive_one(tmp_path: Path) -> None:
    texts = tmp_path / "texts.txt"
    words = ["--write", str(texts), "--texts", "30"]
    subprocess.run([sys.executable, str(BENCHMARK), *words], check=True)
    read = texts.read_text(encoding="utf-8").split("\n\n")
    assert len(read) == len(set(read)) == 6 * 30
    assert sum(text.startswith("json: ") for text in read) == 30
    folder = tmp_path / "model"
    folder.mkdir()
    tokenizer = train_tokenizer("byte_bpe", read, vocab_size=300, lowercase=False)
    add_mask(tokenizer)
    torch.manual_seed(0)
    config = DecoderConfig(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=16, layers=1, heads=2, kv_heads=1,
        head_dim=8, intermediate_size=32, max_positions=512,
    )  # fmt: skip
    learned = {"mask_token_id": tokenizer.token_to_id("<|mask|>"), "block": 32}
    save_decoder(folder, Decoder(config), {"eos_token_id": 0, "wedlm": learned})
    save_tokenizer(folder, TextEncoder(tokenizer, 512))
    words = ["--model", str(folder), "--base", str(folder), "--examples", "1"]
    words += ["--windows", "1", "4", "--output", str(tmp_path / "found")]
    done = subprocess.run([sys.executable, str(BENCHMARK), *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    rows = {row["decoding"]: row for row in found["decodings"]}
    assert rows["W=1"]["as autoregressive"] == 1
    assert rows["W=1"]["TPF"] == rows["W=1"]["efficiency"]
    assert found["window"] in rows
    assert "| W=4 | " in done.stdout
