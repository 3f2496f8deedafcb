"""The worker's own process supervises children: what only computes is never loaded in it."""

import subprocess
import sys

HEAVY = ("evidently", "mlflow", "pandas", "scipy", "skfolio", "sklearn")


def test_the_supervising_process_loads_no_library_that_only_computes() -> None:
    program = f"import sys, worker.executor; print(*sorted(set({HEAVY}) & sys.modules.keys()))"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True)
    assert found.stdout.split() == []
