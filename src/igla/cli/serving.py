"""igla serve."""

from pathlib import Path
from typing import Annotated

import typer

from igla.errors import UserError

app = typer.Typer()


@app.command(
    epilog="""
    Examples:\n
      igla serve runs/first\n
      igla serve toxic=runs/toxic spam=runs/spam --port 8080 --config serve.yaml
    """
)
def serve(
    models: Annotated[
        list[str],
        typer.Argument(metavar="[NAME=]FOLDER…", help="Runs or model folders; the first answers."),
    ],
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen at.")] = 8080,
    config: Annotated[
        Path | None, typer.Option(help="YAML of attributes, decisions, limits and logs.")
    ] = None,
    keys: Annotated[
        Path | None, typer.Option(help="File of igla keys; without it everybody may ask.")
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="auto (by measurement), float32 or bf16.")
    ] = None,
    tls_certificate: Annotated[
        Path | None, typer.Option(help="PEM file of the certificate, for https.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM file of its private key.")] = None,
) -> None:
    """Answer Perspective's, OpenAI's, Text Embeddings Inference's and KServe's clients."""
    from igla.serve.command import serve as run

    if (tls_certificate is None) != (tls_key is None):
        raise UserError("--tls-certificate and --tls-key go together.")
    both = (tls_certificate, tls_key) if tls_certificate and tls_key else None
    run(models, host, port, config, keys, both, precision)
