"""igla doctor."""

import typer

app = typer.Typer()


@app.command()
def doctor() -> None:
    """Say what this machine can do, measured, and what igla will choose on it."""
    from igla.doctor import print_findings

    print_findings()
