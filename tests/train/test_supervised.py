"""Decoders that learn the assistant's turns of conversations."""

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from igla.adapt.opened import open_decoder
from igla.data.batch import pack
from igla.data.conversations import Conversations, load_conversations
from igla.data.split import VALIDATION
from igla.errors import UserError
from igla.infer.generator import Generator, is_decoder
from igla.model.decoder import Decoder, DecoderConfig, load_decoder, packed_causal, save_decoder
from igla.objective.sft import Supervised
from igla.recipe import Recipe, load_recipe
from igla.terminal import plain_console
from igla.text.template import CHATML, ChatTemplate
from igla.text.tokenizer import TextEncoder, load_tokenizer, save_tokenizer, train_tokenizer
from igla.train.run import resume, train

QUIET = plain_console(quiet=True)
LENGTH = 48


def asked(number: int) -> list[dict[str, str]]:
    answer = "odd" if number % 2 else "even"
    return [
        {"role": "user", "content": f"Is {number} odd?"},
        {"role": "assistant", "content": answer},
    ]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny decoder that has learned nothing yet."""
    folder = tmp_path_factory.mktemp("base")
    texts = [one["content"] for number in range(200) for one in asked(number)]
    tokenizer = train_tokenizer(
        "byte_bpe", [*texts, "user assistant"], vocab_size=330, lowercase=False
    )
    torch.manual_seed(0)
    config = DecoderConfig(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=32, layers=2, heads=2, kv_heads=1,
        head_dim=16, intermediate_size=64, max_positions=64,
    )  # fmt: skip
    save_decoder(folder, Decoder(config), {"eos_token_id": 0})
    save_tokenizer(folder, TextEncoder(tokenizer, 64))
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "talks.jsonl"
    rows = [json.dumps({"messages": asked(number)}) for number in range(200)]
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def tuning(base: Path, data: Path) -> Callable[..., Recipe]:
    """The recipe of a tuning that takes a second, with some settings changed."""
    own = [f"model.base={base}", f"data.source={data}", "objective.task=sft"]
    own += "train.batch_tokens=512 train.precision=float32 optim.learning_rate=3e-3".split()
    return lambda *changes: load_recipe(None, [*own, "train.steps=6", *changes])


@pytest.fixture(scope="module")
def encoder(base: Path) -> TextEncoder:
    return TextEncoder(load_tokenizer(base), LENGTH)


def read(path: Path, encoder: TextEncoder, *changes: str, template: str = CHATML) -> Conversations:
    recipe = load_recipe(None, [f"data.source={path}", *changes]).data
    return load_conversations(recipe, 1, ChatTemplate(template), encoder)


def write(path: Path, rows: list[Any]) -> Path:
    text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n"
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text, encoding="utf-8")
    return path


def losses(folder: Path) -> list[float]:
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [one["loss"] for line in lines if (one := json.loads(line))["kind"] == "step"]


FORMS: dict[str, Any] = {
    "messages": {"messages": [{"role": "user", "content": "q"},
                              {"role": "assistant", "content": "a"}]},
    "sharegpt": {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
    "prompt": {"prompt": "q", "completion": "a"},
    "messages in prompt": {"prompt": [{"role": "user", "content": "q"}],
                           "completion": [{"role": "assistant", "content": "a"}]},
    "instruction": {"instruction": "q", "output": "a", "input": ""},
    "self-instruct": {"instruction": "q", "instances": [{"input": "", "output": "a"}]},
    "hh-rlhf": {"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: q"},
    "gsm8k": {"question": "q", "answer": "a"},
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_each_form_of_data_is_read_as_the_same_conversation(
    form: str, encoder: TextEncoder, tmp_path: Path
) -> None:
    found = read(write(tmp_path / "rows.jsonl.gz", [FORMS[form]] * 3), encoder)
    text = encoder.tokenizer.decode(found.store.tokens[: found.store.offsets[1]].tolist(),
                                    skip_special_tokens=False)  # fmt: skip
    assert text == "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\na<|im_end|>\n"
    assert found.ends == (encoder.tokenizer.token_to_id("<|im_end|>"),)


def test_columns_can_be_named(encoder: TextEncoder, tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [{"ask": "q", "say": "a", "messages": 3}])
    columns = ["data.prompt_column=ask", "data.completion_column=say"]
    assert len(read(path, encoder, *columns).store.lengths) == 1
    with pytest.raises(UserError, match="no column 'asks'; it has ask, say, messages"):
        read(path, encoder, "data.prompt_column=asks", columns[1])
    with pytest.raises(UserError, match="go together"):
        read(path, encoder, columns[0])
    path = write(tmp_path / "other.jsonl", [{"ask": "q", "say": "a"}])
    with pytest.raises(UserError, match="columns ask, say, which are no conversations"):
        read(path, encoder)


def test_what_cannot_be_learned_from_is_counted_and_refused_or_dropped(
    encoder: TextEncoder, tmp_path: Path
) -> None:
    long = [{"role": "user", "content": "odd " * 60}, {"role": "assistant", "content": "a"}]
    cut = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "odd " * 60}]
    rows = [
        {"messages": asked(3)},
        {"messages": asked(4)[:1]},
        {"messages": asked(5)[:1]},
        {"messages": [{"role": "bot", "content": "a"}]},
        {"messages": long},
        {"messages": cut},
    ]
    path = write(tmp_path / "rows.jsonl", rows)
    said = "4 of 6 conversations cannot be learned from: .*, row 2: it has no turn of the assist"
    with pytest.raises(UserError, match=said):
        read(path, encoder)
    with pytest.raises(UserError, match="2 of 2 conversations .*; none is left"):
        read(write(tmp_path / "none.jsonl", rows[1:3]), encoder, "data.empty=drop")
    found = read(path, encoder, "data.empty=drop")
    assert len(found.store.lengths) == 2 and found.store.lengths.max() == LENGTH
    lines = [decision.said for decision in found.decisions]
    assert lines[0] == "2 of 6 conversations"
    assert any("dropped: 2 conversations (it has no turn of the assistant)" in one for one in lines)
    assert any("the role 'bot' is unknown" in one and "row 4" in one for one in lines)
    assert any(f"no turn of the assistant is within {LENGTH} tokens" in one for one in lines)
    lost = int(found.store.lost.sum())
    assert lost > 0 and f"cut at {LENGTH} tokens: 1 conversations, {lost} tokens lost" in lines


def test_fields_that_the_template_does_not_read_are_counted(
    encoder: TextEncoder, tmp_path: Path
) -> None:
    question, answer = asked(3)
    rows = [
        {"prompt": [question], "completion": [answer]},
        {"prompt": [question], "completion": [answer | {"calls": ["f"], "name": "n"}]},
    ]
    path = write(tmp_path / "rows.jsonl", rows)
    template = (
        "{% for m in messages %}{{ m.content }}{% if m.name is defined %}<{{ m.name }}>"
        "{% endif %}{% endfor %}"
    )
    found = read(path, encoder, template=template)
    lines = [decision.said for decision in found.decisions]
    assert "the chat template does not read 'calls': 1 conversations have it" in lines
    assert not any("'name'" in line for line in lines)
    first, second = (encoder.tokenizer.decode(ids) for ids in found.store.sequences(np.arange(2)))
    assert "<" not in first and "<n>" in second


WITH_TOOLS = (
    "{% for tool in tools or [] %}{{ tool | tojson }} {% endfor %}{% for m in messages %}"
    "{% if m.role == 'assistant' %}{% generation %}{{ m.content or '' }}"
    "{{ m.tool_calls | tojson if m.tool_calls }}{% endgeneration %}{% else %}{{ m.content }}\n"
    "{% endif %}{% endfor %}"
)


def test_tools_and_their_calls_go_to_the_template(encoder: TextEncoder, tmp_path: Path) -> None:
    encoder = TextEncoder(encoder.tokenizer, 400)
    tool = {"name": "f", "parameters": {"x": {"type": "int"}}}
    call = {"name": "f", "arguments": {"x": 3}}
    talk = [asked(3)[0], {"role": "assistant", "content": None, "tool_calls": [call]}]
    other = {"name": "g", "parameters": {"y": {"type": "str"}}}
    rows = [{"messages": talk, "tools": [tool]}, {"messages": asked(4), "tools": [other]}]
    rows += [{"messages": asked(5)}]
    found = read(write(tmp_path / "rows.jsonl", rows), encoder, template=WITH_TOOLS)
    first, second, third = map(encoder.tokenizer.decode, found.store.sequences(np.arange(3)))
    assert first == f"{json.dumps(tool)} {talk[0]['content']}\n{json.dumps([call])}"
    assert second.startswith(json.dumps(other)) and not third.startswith("{")
    learned = encoder.tokenizer.decode(found.store.tokens[found.learned].tolist())
    assert learned.startswith(json.dumps([call])) and "parameters" not in learned
    told = [{**row, "tools": json.dumps(row["tools"])} for row in rows[:2]]
    same = read(write(tmp_path / "told.jsonl", told), encoder, template=WITH_TOOLS)
    assert encoder.tokenizer.decode(same.store.sequences(np.arange(1))[0]) == first


def test_a_call_that_the_template_would_leave_out_is_refused(
    encoder: TextEncoder, tmp_path: Path
) -> None:
    calls = [asked(3)[0], {"role": "assistant", "content": None, "tool_calls": [{"name": "f"}]}]
    path = write(tmp_path / "rows.jsonl", [{"messages": calls}])
    with pytest.raises(UserError, match="row 1: a turn calls a tool, and the chat template reads"):
        read(path, encoder)
    rows = [{"messages": asked(3), "tools": one} for one in ('{"name": "f"}', "f(x)")]
    with pytest.raises(UserError, match="2 of 2 .*, row 1: its tools are no list, and no JSON"):
        read(write(tmp_path / "tools.jsonl", rows), encoder)
    path = write(tmp_path / "unread.jsonl", [{"messages": asked(3), "tools": ["f"]}])
    lines = [decision.said for decision in read(path, encoder).decisions]
    assert "the chat template does not read 'tools': 1 conversations have it" in lines


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"messages": [None, *asked(3)]}, "a message has no role"),
        ({"messages": ["Is 3 odd?", "odd"]}, "a message has no role"),
        ({"conversations": [None, {"from": "gpt", "value": "a"}]}, "a message has no role"),
        ({"conversations": ["q", "a"]}, "a message has no role"),
        ({"instruction": None, "input": "3", "output": "odd"}, "message of 'user' is no text"),
        ({"instruction": "q", "instances": "odd"}, "it holds no messages"),
        ({"instruction": "q", "instances": ["odd"]}, "message of 'assistant' is no text"),
        ({"instruction": "q", "instances": [{"input": ""}]}, "'assistant' is no text"),
    ],
)
def test_a_row_that_is_no_conversation_is_said_and_none_of_it_passed_over(
    row: dict[str, Any], why: str, encoder: TextEncoder, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=f"row 1: .*{why}"):
        read(write(tmp_path / "rows.jsonl", [row]), encoder)


def test_a_template_that_fails_is_named(encoder: TextEncoder, tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [{"messages": asked(3)}])
    with pytest.raises(UserError, match="the chat template does not take this: no users here"):
        read(path, encoder, template="{{ raise_exception('no users here') }}")


def test_a_template_that_ends_no_turn_is_warned_of(encoder: TextEncoder, tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [{"messages": asked(3)}])
    open_end = "{% for m in messages %}{{ m.content }}\n{% endfor %}"
    found = read(path, encoder, template=open_end)
    assert found.ends == () and "will not learn to stop" in found.decisions[-1].said


def test_a_question_is_trained_on_or_validated_on_but_never_both(
    encoder: TextEncoder, tmp_path: Path
) -> None:
    rows = [{"prompt": f"q{number % 50}", "completion": f"a{number}"} for number in range(200)]
    found = read(write(tmp_path / "rows.jsonl", rows), encoder, "data.validation_share=0.3")
    parts = found.parts.reshape(4, 50)
    assert (parts == parts[0]).all() and 5 < (parts[0] == VALIDATION).sum() < 25
    one, other = write(tmp_path / "a.jsonl", rows[:9]), write(tmp_path / "b.jsonl", rows[9:12])
    found = read(one, encoder, f"data.validation={other}")
    assert found.parts.tolist() == [0] * 9 + [VALIDATION] * 3


@torch.no_grad()
def test_the_loss_is_that_of_the_assistants_tokens_each_conversation_alone(
    base: Path, data: Path, encoder: TextEncoder
) -> None:
    """No conversation sees another one in its batch, and nobody's but the assistant's count."""
    model, found = load_decoder(base).eval(), read(data, encoder)
    rows = np.array([3, 17, 4])
    loss = Supervised().loss(model, found.batch(rows))
    total, count = 0.0, 0
    for row in rows:
        batch = found.batch(np.array([row]))
        states = model(batch.tokens, batch.positions, packed_causal(batch, model.config))
        logprobs = model.logits(states).log_softmax(-1)
        for place in range(1, len(batch.tokens)):
            if found.learned[found.store.offsets[row] + place]:
                total -= float(logprobs[place - 1, batch.tokens[place]])
                count += 1
    assert int(loss.count) == count == 3 * 2
    assert abs(float(loss.sum) - total) < 1e-4 * total


def generated(folder: Path, number: int) -> str:
    """What a tuned model answers, the likeliest token at a time."""
    model, tokenizer = open_decoder(folder).eval(), load_tokenizer(folder)
    template = ChatTemplate.of_folder(folder)
    assert template is not None
    ends = json.loads((folder / "generation_config.json").read_text())["eos_token_id"]
    ids = tokenizer.encode(template.prompt(asked(number)[:1]), add_special_tokens=False).ids
    begun = len(ids)
    while len(ids) < 60:
        batch = pack([np.array(ids)])
        with torch.no_grad():
            states = model(batch.tokens, batch.positions, packed_causal(batch, model.config))
            token = int(model.logits(states[-1:]).argmax())
        if token in ends:
            break
        ids.append(token)
    return str(tokenizer.decode(ids[begun:]))


@pytest.fixture(scope="module")
def tuned(tuning: Callable[..., Recipe], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has learned to answer."""
    folder = tmp_path_factory.mktemp("tuned") / "run"
    train(tuning("train.steps=60", "optim.learning_rate=1e-2"), folder, QUIET)
    return folder


def test_a_tuned_decoder_answers_and_stops(tuned: Path) -> None:
    found = losses(tuned)
    assert np.mean(found[-5:]) < found[0] / 3
    assert {generated(tuned / "model", number) for number in range(6)} <= {"odd", "even"}


@pytest.mark.parametrize("method", ["lora", "dora", "qlora"])
def test_an_adapter_teaches_a_decoder_other_answers(
    method: str, tuned: Path, tuning: Callable[..., Recipe], tmp_path: Path
) -> None:
    if method == "qlora":
        pytest.importorskip("bitsandbytes", reason="the extra igla[qlora] is not installed")
    rows = [{"prompt": one[0]["content"], "completion": "even"} for one in map(asked, range(200))]
    own = [f"data.source={write(tmp_path / 'rows.jsonl', rows)}", f"adapt.method={method}"]
    own += [f"model.base={tuned / 'model'}", "train.steps=40", "optim.learning_rate=4e-3"]
    train(tuning(*own), tmp_path / "run", QUIET)
    model = tmp_path / "run" / "model"
    assert (model / "adapter_config.json").exists() and not (model / "model.safetensors").exists()
    assert is_decoder(model) and Generator.load(model).template is not None
    assert {generated(model, number) for number in range(6)} == {"even"}
    # The head of so small a model, which is frozen, leaves a quarter of a nat in any case.
    found = losses(tmp_path / "run")
    assert np.mean(found[-5:]) < 0.8 * found[0]


@pytest.mark.parametrize("method", ["none", "dora"])
def test_resuming_is_bit_exact(
    method: str,
    tuning: Callable[..., Recipe],
    train_killed: Callable[[Recipe, Path, int], None],
    tmp_path: Path,
) -> None:
    recipe = tuning(f"adapt.method={method}", "train.save_steps=2", "train.micro_batch_size=9")
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train(recipe, whole, QUIET)
    train_killed(recipe, cut, 4)
    assert resume(cut, QUIET).finished
    assert losses(cut) == losses(whole)
    file = "model.safetensors" if method == "none" else "adapter_model.safetensors"
    assert (cut / "model" / file).read_bytes() == (whole / "model" / file).read_bytes()


def test_a_base_without_a_template_and_without_chatmls_marks_is_refused(
    base: Path, tuning: Callable[..., Recipe], tmp_path: Path
) -> None:
    other = shutil.copytree(base, tmp_path / "base")
    file = other / "tokenizer.json"
    file.write_text(file.read_text().replace("im_start", "im_begin"))
    with pytest.raises(UserError, match=r"no chat template, and its vocabulary has no <\|im_sta"):
        train(tuning(f"model.base={other}"), tmp_path / "run", QUIET)
    (other / "chat_template.jinja").write_text(CHATML.replace("im_start", "im_begin"))
    assert train(tuning(f"model.base={other}", "train.steps=1"), tmp_path / "again", QUIET).finished


def test_without_a_base_there_is_nothing_to_tune(data: Path, tmp_path: Path) -> None:
    recipe = load_recipe(None, [f"data.source={data}", "objective.task=sft"])
    with pytest.raises(UserError, match="goes on from a decoder: name it by --base"):
        train(recipe, tmp_path / "run", QUIET)
