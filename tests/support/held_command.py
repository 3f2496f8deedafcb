"""Run the command line, and hold it when it has printed certain lines: until a line comes in, or for ever.

python -m support.held_command '["runs are held", "copied "]' admin move-data --to ...
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from optaic.cli import main, moving
from optaic.cli.output import print_line


def hold(texts: Sequence[str]) -> None:
    """Have the command wait whenever it has printed a line with the next one of some texts."""
    left = list(texts)

    def print_and_wait(*parts: str) -> None:
        print_line(*parts)
        if left and left[0] in " ".join(parts):
            del left[0]
            sys.stdin.readline()

    vars(moving)[print_line.__name__] = print_and_wait


if __name__ == "__main__":
    hold(json.loads(sys.argv.pop(1)))
    main()
