"""igla generate, igla export, igla bench."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()
bench = typer.Typer(help="Measure this machine with a model.", no_args_is_help=True)
app.add_typer(bench, name="bench")

Model = Annotated[str, typer.Argument(help="Run folder or model folder of a decoder.")]
Precision = Annotated[str, typer.Option(help="Of the weights: float32, bf16, int8 or int4.")]
EngineName = Annotated[str, typer.Option("--engine", help="torch, onnx or llamacpp.")]
Provider = Annotated[str, typer.Option(help="Of the onnx engine: cpu, cuda …")]


@app.command(
    epilog="""
    Examples:\n
      igla generate runs/first "Однажды"\n
      igla generate runs/first "Однажды" --temperature 0.8 --top-p 0.9 --seed 1 --count 3\n
      igla generate runs/first "Мой заказ: " --json-schema order.json --precision int8\n
      echo "Hello" | igla generate ./llama --engine onnx
    """
)
def generate(
    model: Model,
    prompt: Annotated[str | None, typer.Argument(help="Text to go on from; or stdin.")] = None,
    max_tokens: Annotated[
        int | None, typer.Option(help="The most tokens; 256 if not given.")
    ] = None,
    temperature: Annotated[float, typer.Option(help="0: the likeliest token every time.")] = 0.0,
    top_k: Annotated[int, typer.Option(help="Draw from so many likeliest tokens; 0: all.")] = 0,
    top_p: Annotated[float, typer.Option(help="Draw from the likeliest of this mass.")] = 1.0,
    min_p: Annotated[float, typer.Option(help="Least share of the likeliest's probability.")] = 0.0,
    typical_p: Annotated[float, typer.Option(help="Draw from the typical of this mass.")] = 1.0,
    repetition_penalty: Annotated[float, typer.Option(help="Above 1: fewer repetitions.")] = 1.0,
    logit_bias: Annotated[
        list[str] | None,
        typer.Option(metavar="TOKEN=BIAS", help="Added to its logit; repeatable: ' the=-5', 17=2."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of the draws; they repeat with it.")] = None,
    stop: Annotated[list[str] | None, typer.Option(help="String that ends it; repeatable.")] = None,
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="Texts to write.")] = 1,
    beams: Annotated[int, typer.Option(min=0, help="Beam search with so many; 0: none.")] = 0,
    json_schema: Annotated[
        str | None, typer.Option(help="File of a schema to keep to; 'any': any JSON object.")
    ] = None,
    regex: Annotated[str | None, typer.Option(help="Pattern that the text has to match.")] = None,
    draft: Annotated[str | None, typer.Option(help="Folder of a small model that guesses.")] = None,
    lookup: Annotated[bool, typer.Option("--lookup", help="Guess from the text itself.")] = False,
    chat: Annotated[bool, typer.Option("--chat", help="The prompt is a user's message.")] = False,
    engine: EngineName = "torch",
    precision: Precision = "float32",
    provider: Provider = "cpu",
    window: Annotated[
        int | None, typer.Option(help="Positions decided at once, of models that fill masks.")
    ] = None,
    adapter: Annotated[
        str | None, typer.Option(help="Run or folder of an adapter, igla's or PEFT's, to put on.")
    ] = None,
) -> None:
    """Write what follows a text, as it comes."""
    from igla.infer.engines import Engine
    from igla.infer.generate import Wanted
    from igla.infer.generate import generate as run
    from igla.infer.sampling import Sampling

    sampling = Sampling(
        repetition_penalty=repetition_penalty,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        typical_p=typical_p,
        seed=seed,
    )
    wanted = Wanted(
        sampling=sampling,
        max_tokens=max_tokens,
        logit_bias=logit_bias or (),
        stop=stop or (),
        count=count,
        beams=beams,
        json_schema=json_schema,
        regex=regex,
        draft=draft,
        lookup=lookup,
        chat=chat,
        engine=Engine(engine, precision, provider),
        window=window,
        adapter=adapter,
    )
    run(model, prompt, wanted)


@app.command(
    epilog="""
    Examples:\n
      igla export runs/first --format onnx\n
      igla export runs/first --format gguf --precision int8
    """
)
def export(
    model: Model,
    format: Annotated[str, typer.Option("--format", help="onnx or gguf.")] = "onnx",
    precision: Precision = "float32",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder; one in the model's if none."),
    ] = None,
) -> None:
    """Write a decoder for another engine."""
    from igla.infer.exporting import export as run

    run(model, format, precision, output)


@bench.command(epilog="Example: igla bench decode runs/first --precision int8")
def decode(
    model: Model,
    engine: EngineName = "torch",
    precision: Precision = "float32",
    provider: Provider = "cpu",
    context: Annotated[int, typer.Option(min=1, help="Tokens in the cache.")] = 256,
    prompt: Annotated[
        str | None, typer.Option(help="Text to write on from, for models that fill masks.")
    ] = None,
) -> None:
    """What several rows in a forward cost, and which window of parallel decoding pays."""
    from igla.infer.engines import Engine
    from igla.infer.window import measure_decode

    measure_decode(model, Engine(engine, precision, provider), context, prompt)
