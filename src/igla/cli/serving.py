"""igla serve."""

from pathlib import Path
from typing import Annotated

import typer

from igla.errors import UserError

app = typer.Typer()

Models = Annotated[
    list[str],
    typer.Argument(metavar="[NAME=]FOLDER…", help="Runs or model folders; the first answers."),
]
Host = Annotated[str, typer.Option(help="Address to listen at.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="Port to listen at.")]
Config = Annotated[
    Path | None, typer.Option(help="YAML of attributes, decisions, limits and logs.")
]
Keys = Annotated[Path | None, typer.Option(help="File of igla keys; without it everybody may ask.")]
Precision = Annotated[
    str | None,
    typer.Option(help="auto (by measurement), float32, bf16, int8; of decoders also int4."),
]
Certificate = Annotated[
    Path | None, typer.Option("--tls-certificate", help="PEM file of the certificate, for https.")
]
PrivateKey = Annotated[Path | None, typer.Option("--tls-key", help="PEM file of its private key.")]


@app.command(
    epilog="""
    Examples:\n
      igla serve runs/first\n
      igla serve toxic=runs/toxic spam=runs/spam --port 8080 --config serve.yaml
    """
)
def serve(
    models: Models,
    host: Host = "127.0.0.1",
    port: Port = 8080,
    config: Config = None,
    keys: Keys = None,
    precision: Precision = None,
    engine: Annotated[str | None, typer.Option(help="Of decoders: torch, onnx, llamacpp.")] = None,
    provider: Annotated[str | None, typer.Option(help="Of the onnx engine: cpu, cuda …")] = None,
    window: Annotated[
        str | None,
        typer.Option(help="Of decoders that fill masks: positions decided at once; auto."),
    ] = None,
    tls_certificate: Certificate = None,
    tls_key: PrivateKey = None,
) -> None:
    """Answer Perspective's, OpenAI's, Text Embeddings Inference's and KServe's clients."""
    from igla.serve.early import begin

    begin()
    from igla.serve.command import serve as run
    from igla.serve.settings import load_settings

    certificate = both(tls_certificate, tls_key)
    settings = load_settings(
        config, precision=precision, engine=engine, provider=provider, window=window
    )
    run(models, host, port, settings, keys, certificate)


def both(certificate: Path | None, key: Path | None) -> tuple[Path, Path] | None:
    """The files for https, or neither."""
    if (certificate is None) != (key is None):
        raise UserError("--tls-certificate and --tls-key go together.")
    return (certificate, key) if certificate and key else None
