"""The README's example does what it says, as it stands."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.polling import PATIENCE
from support.stack import RunningStack

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("time", ["first", "second"])
def test_the_example_runs(stack: RunningStack, tmp_path: Path, time: str) -> None:
    del time  # what the first has made is there the second time
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    finished = subprocess.run(
        [sys.executable, "-c", example],
        cwd=tmp_path,
        env={**os.environ, "OPTAIC_STATE": str(stack.settings.root)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "2022-12-28" in finished.stdout
    assert "MSFT" in finished.stdout
