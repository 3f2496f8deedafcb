"""The blocks of docs/tutorial.md, typed in order at Python's prompt, print what the page shows."""

import os
import re
import subprocess
import sys
from pathlib import Path

from support.polling import PATIENCE
from support.stack import RunningStack

PAGE = Path(__file__).parents[2] / "docs" / "tutorial.md"
# A block of code, and the block of output that follows it, if there is one.
BLOCK = re.compile(r"```python\n(.*?)```\n(?:\n```text\n(.*?)```\n)?", re.DOTALL)
END = "=== end of block"


def test_the_tutorial_prints_what_it_shows(stack: RunningStack, tmp_path: Path) -> None:
    blocks = BLOCK.findall(PAGE.read_text())
    assert sum(bool(shown) for _, shown in blocks) == PAGE.read_text().count("```text")
    finished = subprocess.run(
        [sys.executable, "-q", "-i"],  # the page says: in one session of Python
        input="".join(f"{code}\nprint({END!r})\n" for code, _ in blocks),
        cwd=tmp_path,
        env={**os.environ, "OPTAIC_STATE": str(stack.settings.root)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "Traceback" not in finished.stderr, finished.stderr
    assert "SyntaxError" not in finished.stderr, finished.stderr
    printed = finished.stdout.split(f"{END}\n")
    assert printed == [*(shown for _, shown in blocks), ""]
