"""Decoders behind OpenAI's protocol: whole answers, streams, what is refused, and who leaves."""

import asyncio
import gc
import json
import shutil
import socket
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, aclosing
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import torch
import torch.nn.functional as F
import transformers

from igla.errors import UserError
from igla.infer.decoding import Autoregressive
from igla.infer.engines import Engine
from igla.infer.exporting import export
from igla.infer.generator import Generator
from igla.infer.sampling import Sampling
from igla.infer.text_stream import TextStream
from igla.model.decoder import Decoder, DecoderConfig, save_decoder
from igla.serve.command import serve as serve_models
from igla.serve.engine import Full
from igla.serve.generation import GenerationEngine
from igla.serve.keys import add_key
from igla.serve.models import WrongKind, open_model
from igla.serve.settings import load_settings
from igla.serve.writing import Order, write
from igla.text.tokenizer import TextEncoder, save_tokenizer, train_tokenizer

Serve = Callable[..., AbstractContextManager[Any]]
TEXTS = ["кот пьёт молоко и спит", "the cat drinks milk and sleeps", '{"name": "Анна", "age": 7}']
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A decoder with random weights, large ones, so that its choices are far apart."""
    folder = tmp_path_factory.mktemp("decoder")
    tokenizer = train_tokenizer("byte_bpe", TEXTS * 3, vocab_size=320, lowercase=False)
    torch.manual_seed(0)
    shape = dict(hidden_size=32, layers=2, heads=4, kv_heads=2, head_dim=8, intermediate_size=64)
    size = tokenizer.get_vocab_size()
    model = Decoder(DecoderConfig(vocab_size=size, max_positions=512, **shape))  # type: ignore[arg-type]
    for parameter in model.parameters():
        if parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=0.3)
    save_decoder(folder, model, {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": None})
    save_tokenizer(folder, TextEncoder(tokenizer, 512))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


@pytest.fixture(scope="module")
def address(decoder: Path, serve: Serve) -> Iterator[str]:
    with serve(f"cat={decoder}") as running:
        yield running.address


@pytest.fixture
def client(address: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)


@pytest.fixture(scope="module")
def generator(decoder: Path) -> Generator:
    return Generator.load(decoder)


def expected(generator: Generator, prompt: list[int], most: int, sampling: Sampling) -> str:
    """What the scheduler by itself writes."""
    scheduler = generator.scheduler(1024)
    decoding = Autoregressive(sampling)
    scheduler.submit(prompt, [decoding], max_tokens=most, stop_tokens=generator.ends)
    stream, text = TextStream(generator.tokenizer, prompt=prompt), ""
    while not scheduler.idle:
        for progress in scheduler.step():
            text += "".join(stream.push(decided.token) for decided in progress.tokens)
    return text + stream.finish()


def test_a_completion_is_what_the_decoder_writes(
    client: openai.OpenAI, generator: Generator
) -> None:
    found = client.completions.create(model="cat", prompt="кот", max_tokens=24, temperature=0)
    prompt = generator.prompt("кот")
    text = found.choices[0].text
    assert text == expected(generator, prompt, 24, Sampling())
    assert text
    assert found.object == "text_completion"
    assert found.model.startswith("cat/")
    assert found.usage is not None
    assert found.usage.prompt_tokens == len(prompt)
    assert found.usage.total_tokens == len(prompt) + found.usage.completion_tokens
    assert (found.choices[0].finish_reason == "length") == (found.usage.completion_tokens == 24)


def test_a_stream_gives_the_same_text_in_pieces(client: openai.OpenAI) -> None:
    asked = dict(model="cat", prompt="кот пьёт", max_tokens=40, seed=3, temperature=0.8)
    whole = client.completions.create(**asked)
    parts = list(
        client.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    )
    assert "".join(part.choices[0].text for part in parts if part.choices) == whole.choices[0].text
    assert parts[-1].choices == []
    assert parts[-1].usage == whole.usage
    assert sum(bool(part.choices and part.choices[0].finish_reason) for part in parts) == 1
    assert len(parts) > 3


def test_a_chat_reads_the_template_of_the_folder(
    client: openai.OpenAI, generator: Generator
) -> None:
    messages = [{"role": "user", "content": [{"type": "text", "text": "кот?"}]}]
    found = client.chat.completions.create(
        model="cat", messages=messages, max_completion_tokens=20, temperature=0
    )
    told = "<|im_start|>user\nкот?<|im_end|>\n<|im_start|>assistant\n"
    prompt = generator.tokenizer.encode(told, add_special_tokens=False).ids
    assert prompt[0] == generator.tokenizer.token_to_id("<|im_start|>")
    assert found.choices[0].message.content == expected(generator, prompt, 20, Sampling())
    assert found.choices[0].message.role == "assistant"
    assert found.usage is not None and found.usage.prompt_tokens == len(prompt)


def test_a_chat_streams_to_the_asynchronous_client(address: str) -> None:
    async def streamed() -> tuple[str, str]:
        async with openai.AsyncOpenAI(base_url=f"{address}/v1", api_key="none") as client:
            asked = dict(
                model="cat", messages=[{"role": "user", "content": "кот"}], max_tokens=30, seed=5
            )
            whole = await client.chat.completions.create(**asked)
            text = ""
            first = True
            async for part in await client.chat.completions.create(**asked, stream=True):
                if first:
                    assert part.choices[0].delta.role == "assistant"
                first = False
                text += part.choices[0].delta.content or ""
            return whole.choices[0].message.content or "", text

    whole, text = asyncio.run(streamed())
    assert whole == text
    assert whole


def test_several_continuations_differ_and_come_again_with_their_seed(
    client: openai.OpenAI,
) -> None:
    asked = dict(model="cat", prompt="the cat", max_tokens=12, n=3, seed=1, temperature=1.5)
    one, other = (client.completions.create(**asked) for _ in range(2))
    texts = [choice.text for choice in one.choices]
    assert texts == [choice.text for choice in other.choices]
    assert len(set(texts)) == 3
    assert [choice.index for choice in one.choices] == [0, 1, 2]


def test_several_prompts_are_answered_in_their_order(client: openai.OpenAI) -> None:
    prompts = ["кот", "the cat", "и"]
    asked = dict(model="cat", max_tokens=8, temperature=0)
    together = client.completions.create(prompt=prompts, **asked)
    alone = [client.completions.create(prompt=one, **asked).choices[0].text for one in prompts]
    assert [choice.text for choice in together.choices] == alone


def test_prompts_may_be_tokens_and_are_echoed(client: openai.OpenAI, generator: Generator) -> None:
    tokens = generator.prompt("кот пьёт")
    asked = dict(model="cat", max_tokens=4, temperature=0)
    found = client.completions.create(prompt=tokens, echo=True, **asked)
    plain = client.completions.create(prompt="кот пьёт", **asked)
    assert found.choices[0].text == "кот пьёт" + plain.choices[0].text


def test_a_stop_string_ends_the_text_and_is_not_part_of_it(client: openai.OpenAI) -> None:
    asked = dict(model="cat", prompt="кот", max_tokens=40, temperature=0)
    whole = client.completions.create(**asked).choices[0].text
    stop = whole[5:8]
    for stream in (False, True):
        found = client.completions.create(**asked, stop=[stop, "ни за что"], stream=stream)
        parts = list(found) if stream else [found]
        text = "".join(part.choices[0].text for part in parts)
        assert text == whole[: whole.index(stop)]
        assert parts[-1].choices[0].finish_reason == "stop"


def test_probabilities_are_those_of_the_model(client: openai.OpenAI, generator: Generator) -> None:
    asked = dict(model="cat", max_tokens=3, temperature=0)
    found = client.completions.create(prompt="кот", logprobs=2, **asked).choices[0].logprobs
    assert found is not None
    assert found.tokens and found.token_logprobs and found.top_logprobs
    assert found.text_offset == [0, len(found.tokens[0]), len(found.tokens[0] + found.tokens[1])]
    prompt = generator.prompt("кот")
    from igla.data.batch import PackedBatch
    from igla.model.decoder import packed_causal

    ids = torch.tensor(prompt)
    batch = PackedBatch(ids, torch.arange(len(ids)), torch.tensor([0, len(ids)]), len(ids))
    model = generator.model
    with torch.inference_mode():
        states = model(ids, batch.positions, packed_causal(batch, model.config))
        log = model.logits(states[-1:])[0].log_softmax(0)
    assert found.token_logprobs[0] == pytest.approx(log.max().item(), abs=1e-4)
    assert sorted(found.top_logprobs[0].values(), reverse=True) == pytest.approx(
        log.topk(2).values.tolist(), abs=1e-4
    )
    chat = client.chat.completions.create(
        messages=[{"role": "user", "content": "кот"}], logprobs=True, top_logprobs=3, **asked
    )
    told = chat.choices[0].logprobs
    assert told is not None and told.content is not None
    assert [len(one.top_logprobs) for one in told.content] == [3, 3, 3]
    assert all(one.logprob == one.top_logprobs[0].logprob for one in told.content)
    assert bytes(told.content[0].bytes or []).decode() == told.content[0].token


def test_answers_can_be_held_to_json_and_to_an_expression(client: openai.OpenAI) -> None:
    asked = dict(model="cat", messages=[{"role": "user", "content": "json"}], seed=2)
    schema = {
        "type": "object",
        "properties": {"age": {"type": "integer", "minimum": 0, "maximum": 99}},
        "required": ["age"],
        "additionalProperties": False,
    }
    held = {"type": "json_schema", "json_schema": {"name": "age", "schema": schema}}
    found = client.chat.completions.create(**asked, max_tokens=100, response_format=held)
    assert found.choices[0].finish_reason == "stop"
    assert 0 <= json.loads(found.choices[0].message.content or "")["age"] <= 99
    found = client.chat.completions.create(**asked, extra_body={"regex": "[0-9]{4}-[0-9]{2}"})
    assert (found.choices[0].message.content or "")[4] == "-"
    assert len(found.choices[0].message.content or "") == 7


def test_models_are_listed(client: openai.OpenAI) -> None:
    (only,) = client.models.list()
    assert only.id == "cat"
    assert client.models.retrieve("cat").owned_by == "igla"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("dog")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (dict(temperature=3), "temperature"),
        (dict(max_tokens=0), "max_tokens"),
        (dict(n=0), "n:"),
        (dict(max_tokens=600), "512"),
        (dict(stop=["x"] * 17), "stop"),
        (dict(presence_penalty=2.5), "presence_penalty"),
        (dict(logit_bias={"5000": 1}), "token 5000"),
        (dict(extra_body={"best": 1}), "best"),
        (dict(extra_body={"regex": "("}), "regular expression"),
        (dict(best_of=3), "best_of"),
        (dict(prompt=[1, 9999]), "no token 9999"),
        (dict(prompt=["a", "b"], stream=True), "one prompt"),
        (dict(stream_options={"include_usage": True}), "stream=true"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_is_answered_400_in_a_sentence(
    client: openai.OpenAI, change: dict[str, object], said: str
) -> None:
    asked: dict[str, object] = {"model": "cat", "prompt": "кот", "max_tokens": 4, **change}
    with pytest.raises(openai.BadRequestError) as refused:
        client.completions.create(**asked)  # type: ignore[call-overload]
    body = refused.value.body
    assert isinstance(body, dict)
    assert said in body["message"]
    assert body["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("route", "change"),
    [
        ("completions", {"prompt": []}),
        ("completions", {"prompt": [], "stream": True}),
        ("completions", {"prompt": [[]]}),
        ("completions", {"prompt": "\ud83d"}),
        ("completions", {"prompt": "кот", "stop": "\ud83d"}),
        ("completions", {"prompt": "кот", "regex": "\ud83d"}),
        ("completions", {"prompt": [[1]] * 33}),
        ("completions", {"prompt": "кот", "regex": "--", "logprobs": 5}),
        ("completions", {"prompt": "кот", "regex": "--", "logprobs": 5, "stream": True}),
        ("completions", {"prompt": "кот", "top_k": 1, "logprobs": 5}),
        ("chat/completions", {"messages": []}),
        ("chat/completions", {"messages": [{"role": "user", "content": "\ud83d"}]}),
        ("chat/completions", {"messages": [{"role": "\ud83d", "content": "кот"}]}),
    ],
)
def test_the_server_fails_at_nothing_that_is_sent(
    address: str, route: str, change: dict[str, object]
) -> None:
    answer = httpx.post(
        f"{address}/v1/{route}",
        content=json.dumps({"model": "cat", "max_tokens": 4, **change}),
        headers={"content-type": "application/json"},
        timeout=60,
    )
    assert answer.status_code < 500, answer.text


def test_nothing_is_computed_for_who_has_no_key_and_a_request_counts_once(
    decoder: Path, serve: Serve, tmp_path: Path
) -> None:
    key = add_key(tmp_path / "keys.json", "reader", ("score",), 1)
    asked = {"model": "default", "prompt": "кот", "max_tokens": 4, "regex": "("}
    with serve(str(decoder), "--keys", str(tmp_path / "keys.json")) as running:
        url, headers = f"{running.address}/v1/completions", {"x-api-key": key}
        assert httpx.post(url, json=asked).status_code == 401
        del asked["regex"]
        statuses = [httpx.post(url, json=asked, headers=headers).status_code for _ in range(2)]
    assert statuses == [200, 429]


def test_tools_images_and_unknown_models_are_refused(client: openai.OpenAI) -> None:
    messages = [{"role": "user", "content": "кот"}]
    tool = {"type": "function", "function": {"name": "look"}}
    with pytest.raises(openai.BadRequestError, match="without tools"):
        client.chat.completions.create(model="cat", messages=messages, tools=[tool])
    image = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model="cat", messages=image)
    with pytest.raises(openai.NotFoundError, match="gpt-9 does not exist"):
        client.chat.completions.create(model="gpt-9", messages=messages)


def test_a_decoder_has_no_scores(address: str) -> None:
    for route, body in (
        ("/v1/moderations", {"input": "кот"}),
        ("/igla/v1/score", {"texts": ["кот"]}),
    ):
        answer = httpx.post(address + route, json=body)
        assert answer.status_code == 400, route
        assert "cat is a decoder: it gives texts, and embeddings" in answer.text
    assert httpx.get(f"{address}/igla/v1/models").json()["models"][0]["name"] == "cat"


def test_a_decoder_embeds(client: openai.OpenAI, address: str, decoder: Path) -> None:
    model = transformers.AutoModel.from_pretrained(decoder).eval()
    ids = transformers.AutoTokenizer.from_pretrained(decoder)(TEXTS)["input_ids"]
    with torch.inference_mode():
        states = [model(torch.tensor([one])).last_hidden_state[0] for one in ids]
    means = torch.stack([one.mean(0) for one in states])
    found = client.embeddings.create(model="cat", input=TEXTS)
    vectors = torch.tensor([one.embedding for one in found.data])
    torch.testing.assert_close(vectors, F.normalize(means), atol=1e-5, rtol=0)
    assert found.usage.prompt_tokens == sum(map(len, ids))
    plain = httpx.post(f"{address}/embed", json={"inputs": TEXTS, "normalize": False}).json()
    torch.testing.assert_close(torch.tensor(plain), means, atol=1e-4, rtol=0)
    assert httpx.get(f"{address}/info").json()["model_type"] == {"embedding": {"pooling": "mean"}}


def test_the_last_token_stands_for_a_text_where_the_folder_says_so(
    decoder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "last"
    shutil.copytree(decoder, folder)
    (folder / "1_Pooling").mkdir()
    pooling = '{"pooling_mode_lasttoken": true}'
    (folder / "1_Pooling" / "config.json").write_text(pooling, encoding="utf-8")
    model = transformers.AutoModel.from_pretrained(decoder).eval()
    ids = transformers.AutoTokenizer.from_pretrained(decoder)(TEXTS)["input_ids"]
    with torch.inference_mode():
        last = [model(torch.tensor([one])).last_hidden_state[0, -1].numpy() for one in ids]
    found = open_model(folder, "cat").embedder.embeddings(TEXTS)
    np.testing.assert_allclose(found, np.stack(last), atol=1e-4)


def test_what_other_engines_compute_has_no_embeddings(decoder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "exported"
    shutil.copytree(decoder, folder)
    export(str(folder), "onnx", "float32", None)
    served = open_model(folder, "cat", engine="onnx")
    with pytest.raises(WrongKind, match="embeddings where torch computes it"):
        _ = served.embedder
    with pytest.raises(UserError, match="This ONNX Runtime has no Abacus"):
        open_model(folder, "cat", engine="onnx", provider="Abacus")


def test_a_classifier_writes_nothing(server: str) -> None:
    client = openai.OpenAI(base_url=f"{server}/v1", api_key="none")
    with pytest.raises(openai.BadRequestError, match="is a classifier"):
        client.completions.create(model="default", prompt="кот")


def test_who_leaves_is_written_for_no_longer(address: str) -> None:
    asked = {"model": "cat", "prompt": "кот", "max_tokens": 480, "n": 32, "stream": True}

    def figure(name: str) -> float:
        lines = httpx.get(f"{address}/metrics", timeout=60).text.splitlines()
        return float(next(one for one in lines if one.startswith(name)).split()[1])

    before = figure("igla_written_tokens_total")
    body = {**asked, "logit_bias": {0: -100}}
    with httpx.stream("POST", f"{address}/v1/completions", json=body, timeout=60) as answer:
        assert next(answer.iter_lines()).startswith("data: ")
    begun = time.monotonic()
    while figure("igla_waiting_tokens") and time.monotonic() - begun < 60:
        time.sleep(0.05)
    assert figure("igla_waiting_tokens") == 0
    assert 0 < figure("igla_written_tokens_total") - before < 32 * 480 / 2


def test_a_text_that_cannot_go_on_takes_no_other_with_it(address: str) -> None:
    asked = {"model": "cat", "prompt": "кот", "temperature": 0}
    long = {**asked, "max_tokens": 400, "logit_bias": {0: -100}, "stream": True}
    with httpx.stream("POST", f"{address}/v1/completions", json=long, timeout=60) as answer:
        lines = answer.iter_lines()
        first = next(lines)
        for _ in range(3):
            wrong = {**asked, "n": 3, "logit_bias": {"5000": 1}}
            refused = httpx.post(f"{address}/v1/completions", json=wrong, timeout=60)
            assert refused.status_code == 400
        rest = [line for line in lines if line]
    assert rest[-1] == "data: [DONE]"
    assert json.loads(rest[-2][6:])["choices"][0]["finish_reason"] == "length"
    assert "error" not in "".join([first, *rest])
    figures = httpx.get(f"{address}/metrics", timeout=60).text.splitlines()
    assert "igla_waiting_tokens 0.0" in figures


def test_a_decoder_that_nobody_holds_is_gone_while_the_engine_waits(decoder: Path) -> None:
    async def check() -> None:
        engine = GenerationEngine(1000, 256, lambda done: None)
        engine.start()
        generator = Generator.load(decoder)
        order = Order(generator.prompt("кот"), [Autoregressive(Sampling())], 4)
        async with aclosing(write(engine, generator, order)) as pieces:
            assert [piece async for piece in pieces]
        gone = weakref.ref(generator)
        del generator
        for _ in range(100):
            await asyncio.sleep(0.02)
            gc.collect()
            if gone() is None:
                break
        assert gone() is None
        await engine.close()

    asyncio.run(check())


def test_what_is_longer_than_expected_is_written_to_its_end(decoder: Path) -> None:
    async def check() -> None:
        engine = GenerationEngine(300, 512, lambda done: None)
        engine.start()
        generator = Generator.load(decoder)
        sampling = Sampling(logit_bias={0: -100.0})  # it never ends by itself
        prompt = generator.prompt("кот")

        async def length(expected: int) -> int:
            order = Order(prompt, [Autoregressive(sampling)], 200, expected=expected)
            async with aclosing(write(engine, generator, order)) as pieces:
                return sum([len(piece.tokens) async for piece in pieces])

        assert await asyncio.gather(*(length(50) for _ in range(4))) == [200] * 4
        assert engine.waiting_tokens == 0
        refused = await asyncio.gather(*(length(200) for _ in range(2)), return_exceptions=True)
        assert {type(one) for one in refused} == {int, Full}
        await engine.close()

    asyncio.run(check())


def test_what_would_wait_too_long_is_refused_with_the_time_to_come_again(
    decoder: Path, serve: Serve, tmp_path: Path
) -> None:
    config = tmp_path / "serve.yaml"
    config.write_text("limits: {waiting_tokens: 600}")
    asked = {"model": "default", "prompt": "кот", "max_tokens": 250, "logit_bias": {0: -100}}
    with serve(str(decoder), "--config", str(config)) as running:

        def ask(_: int) -> httpx.Response:
            return httpx.post(f"{running.address}/v1/completions", json=asked, timeout=120)

        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(ask, range(8)))
        refused = [answer for answer in answers if answer.status_code == 429]
        assert {answer.status_code for answer in answers} == {200, 429}
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
        assert refused[0].json()["error"]["type"] == "rate_limit_error"
        one = httpx.post(f"{running.address}/v1/completions", json={**asked, "n": 3})
        assert one.status_code == 413


@pytest.mark.parametrize("limits", ["cache_tokens: 96", "waiting_tokens: 96"])
def test_a_chat_that_names_no_length_asks_for_no_more_than_there_is_room_for(
    decoder: Path, serve: Serve, tmp_path: Path, limits: str
) -> None:
    config = tmp_path / "serve.yaml"
    config.write_text(f"limits: {{{limits}}}")
    with serve(str(decoder), "--config", str(config)) as running:
        client = openai.OpenAI(base_url=f"{running.address}/v1", api_key="none", max_retries=0)
        talk = [{"role": "user", "content": "кот"}]
        asked = dict(model="default", messages=talk, n=2, logit_bias={0: -100})
        found = client.chat.completions.create(**asked).usage
    texts = 1 if "cache" in limits else 2
    assert found is not None
    each = (96 - found.prompt_tokens) // texts
    assert found.completion_tokens == 2 * each


def test_a_conversation_may_have_many_turns_and_what_is_null_is_not_asked_for(
    client: openai.OpenAI,
) -> None:
    talk = [{"role": role, "content": "кот"} for role in ("user", "assistant")] * 20
    asked = dict(model="cat", max_tokens=4, n=None, stream=None, tools=None, extra_body={"x": None})
    found = client.chat.completions.create(messages=talk, **asked)
    assert len(found.choices) == 1


def test_many_at_once_get_what_each_gets_alone(client: openai.OpenAI) -> None:
    prompts = [f"кот {number}" for number in range(12)]

    def ask(prompt: str) -> str:
        asked = dict(model="cat", prompt=prompt, max_tokens=16, temperature=0)
        return client.completions.create(**asked).choices[0].text

    alone = [ask(prompt) for prompt in prompts]
    with ThreadPoolExecutor(12) as pool:
        together = list(pool.map(ask, prompts))
    assert together == alone


def test_keys_are_asked_for(decoder: Path, serve: Serve, tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    key = add_key(keys, "forum", ("score",), None)
    with serve(str(decoder), "--keys", str(keys)) as running:
        asked = dict(model="default", prompt="кот", max_tokens=2)
        wrong = openai.OpenAI(base_url=f"{running.address}/v1", api_key="none", max_retries=0)
        for stream in (False, True):
            with pytest.raises(openai.AuthenticationError):
                wrong.completions.create(**asked, stream=stream)
        right = openai.OpenAI(base_url=f"{running.address}/v1", api_key=key)
        assert right.completions.create(**asked).choices


def test_what_was_accepted_is_written_to_its_end_after_sigterm(decoder: Path, serve: Serve) -> None:
    with serve(str(decoder)) as running:
        asked = {"model": "default", "prompt": "кот", "max_tokens": 300, "stream": True}
        asked["logit_bias"] = {0: -100}
        with httpx.stream("POST", f"{running.address}/v1/completions", json=asked) as answer:
            lines = answer.iter_lines()
            next(lines)
            running.process.terminate()
            assert [line for line in lines if line][-1] == "data: [DONE]"


def test_weights_of_8_bits_write_what_they_write_without_a_server(
    decoder: Path, generator: Generator, serve: Serve
) -> None:
    narrow = Generator.load(decoder, Engine(precision="int8"))
    prompt = narrow.prompt("кот")
    text = expected(narrow, prompt, 48, Sampling())
    assert text != expected(generator, prompt, 48, Sampling())
    asked = {"model": "default", "prompt": "кот", "max_tokens": 48, "temperature": 0}
    with serve(str(decoder), "--precision", "int8") as running:
        answer = httpx.post(f"{running.address}/v1/completions", json=asked, timeout=60)
        assert answer.json()["choices"][0]["text"] == text
        running.said.seek(0)
        assert "in int8: texts, one token after another" in running.said.read()


def test_a_window_is_the_one_asked_for_or_the_fastest(decoder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "filling"
    shutil.copytree(decoder, folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["wedlm"] = {"mask_token_id": 5, "block": 8}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert open_model(folder, "cat").gives == "texts, by WeDLM with a window of 4"
    assert open_model(folder, "cat", window=8).generator.window == 8
    assert open_model(folder, "cat", window="auto").generator.window in (1, 2, 4, 8)
    with pytest.raises(UserError, match="A window of 9 is asked for; .* blocks of 8"):
        open_model(folder, "cat", window=9)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"window": 4}, "None of the models has learned to fill masks"),
        ({"window": "many"}, "window: a number of positions or auto is wanted"),
        ({"precision": "int2"}, "precision: Input should be 'auto', 'float32', 'bf16', 'int8'"),
        ({"engine": "abacus"}, "There is no engine 'abacus'; there are torch, onnx, llamacpp"),
        ({"engine": "onnx", "precision": "int4"}, "int4 is torch's"),
        ({"provider": "cuda"}, "the provider cuda is of the onnx engine, not torch"),
    ],
)
def test_what_a_decoder_cannot_be_served_by_is_said(
    given: dict[str, object], reason: str, decoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("igla.serve.command.signal.signal", lambda *_: None)
    with socket.socket() as listening, pytest.raises(UserError, match=reason):
        monkeypatch.setattr("igla.serve.command._bound", lambda *_: listening)
        serve_models([str(decoder)], "127.0.0.1", 0, load_settings(None, **given), None, None)


def test_weights_of_4_bits_are_for_decoders(trained: Path) -> None:
    with pytest.raises(UserError, match="An encoder does not compute in int4"):
        open_model(trained, "default", "int4")
