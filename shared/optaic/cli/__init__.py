"""The command line `optaic`: a thin layer over the client; it holds no logic of its own."""


def main() -> None:
    """Run the command line."""
    from optaic.cli.app import app  # noqa: PLC0415 - `optaic.cli` itself stays free to import

    app()
