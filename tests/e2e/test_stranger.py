"""A stranger generates stubs from `protos/` alone with plain protoc, and uses the services with those."""

import json
import os
import subprocess
import sys
from pathlib import Path

from optaic.common.v1 import flow_pb2
from support.clients_page import Workshop, commands_of
from support.polling import PATIENCE
from support.stack import RunningStack

ROOT = Path(__file__).parents[2]


def test_stubs_from_the_protos_alone_are_enough(stack: RunningStack, tmp_path: Path) -> None:
    workshop = Workshop(tmp_path)
    workshop.run(commands_of("Python"))
    stubs = tmp_path / "gen"
    # The project is installed here; a stranger does not have it, so its folders leave the path first.
    ours = [str(ROOT / folder) for folder in ("shared", "services", "deploy")]
    without_ours = (
        "import runpy, sys; "
        f"sys.path = [{str(stubs)!r}] + [path for path in sys.path if path not in {ours!r}]; "
        f"runpy.run_path({str(Path(__file__).parent / 'stranger_program.py')!r}, run_name='__main__')"
    )
    finished = subprocess.run(
        [sys.executable, "-c", without_ours, "stranger"],
        cwd=tmp_path,
        env={**os.environ, **stack.client_environment()},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    answer = json.loads(finished.stdout)
    assert answer["stubs"].startswith(str(stubs))
    assert {"sp500_prices", "expression", "delta", "simple"} <= set(answer["definitions"])
    assert answer["before"] == flow_pb2.STATUS_NOT_INITIALIZED
    assert answer["run"]["status"] == "RUN_STATUS_COMPLETED"
    assert answer["run"]["pipeline"]["last_data_date"] == "2020-12-31"
    assert answer["all_ready"] is True
    assert answer["refused"] == {"code": "INVALID_ARGUMENT", "field": "run_id"}
