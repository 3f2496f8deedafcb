"""The blocks of docs/tutorial.md, executed in order, do what the page says."""

import os
import re
import subprocess
import sys
from pathlib import Path

from support.stack import RunningStack

PAGE = Path(__file__).parents[2] / "docs" / "tutorial.md"


def test_the_tutorial_runs(stack: RunningStack, tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    finished = subprocess.run(
        [sys.executable, "-q", "-i"],  # the page says: in one session of Python
        input="\n".join(blocks),
        cwd=tmp_path,
        env={**os.environ, "OPTAIC_STATE": str(stack.settings.root)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "Traceback" not in finished.stderr, finished.stderr
    assert "SyntaxError" not in finished.stderr, finished.stderr
    printed = finished.stdout
    assert "(UPSTREAM_NOT_READY)" in printed
    assert "top_five COMPLETED read versions {'stock_prices': 1, 'momentum': 1}" in printed
    assert "OWN_CONFIG ['stock_prices', 'momentum', 'top_five']" in printed
    assert "stock_prices 1 -> 2" in printed
    assert printed.rstrip().endswith("is current: True")
