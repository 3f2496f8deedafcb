"""What a command loads: its own module and the client, and nothing that only other commands need."""

import subprocess
import sys

_NEEDLESS = ("yaml", "polars", "pyarrow", "deltalake", "devstack", "optaic.cli.apply", "optaic.cli.moving")


def test_listing_instances_loads_nothing_of_other_commands() -> None:
    program = (
        "import sys, typer; from optaic.cli.app import app\n"
        "typer.main.get_command(app).get_command(None, 'instance')\n"
        f"print(sorted(set({_NEEDLESS!r}) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
