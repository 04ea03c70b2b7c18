"""igla gate."""

from typing import Annotated

import typer

from igla.cli.serving import (
    Certificate,
    Config,
    Host,
    Keys,
    Models,
    Port,
    Precision,
    PrivateKey,
    both,
)

app = typer.Typer(
    name="gate", help="Decide, take corrections, and learn from them.", no_args_is_help=True
)

Log = Annotated[
    str, typer.Option(help="The log: sqlite:///FILE, or postgresql://HOST/NAME to share it.")
]
_LOG = "sqlite:///gate.db"


@app.command(epilog="Example: igla gate serve runs/first --log sqlite:///gate.db --keys keys.json")
def serve(
    models: Models,
    log: Log = _LOG,
    host: Host = "127.0.0.1",
    port: Port = 8080,
    config: Config = None,
    keys: Keys = None,
    precision: Precision = None,
    tls_certificate: Certificate = None,
    tls_key: PrivateKey = None,
) -> None:
    """Do what igla serve does, and decide, keep decisions and take feedback."""
    from igla.gate.command import serve as run
    from igla.gate.settings import GateServerSettings
    from igla.serve.settings import read_settings

    certificate = both(tls_certificate, tls_key)
    settings = read_settings(GateServerSettings, config, precision)
    run(models, host, port, settings, keys, certificate, log)
