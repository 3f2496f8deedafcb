"""Show the files that no run and no version has, and remove them with `--remove`."""

from __future__ import annotations

import argparse
import asyncio
import sys

from servicekit import logging as service_logging
from worker.config import Settings
from worker.leftovers.sweeping import Swept, sweep_leftovers


def main() -> int:
    """Sweep the tenant's folder once; return 1 if something could not be swept."""
    parser = argparse.ArgumentParser(
        prog="python -m worker.leftovers",
        description="Show the files of the worker's tenant that are older than a day and that no run and no version has.",
    )
    parser.add_argument("--remove", action="store_true", help="remove them as well")
    arguments = parser.parse_args()
    settings = Settings()
    service_logging.configure("ERROR", "worker")  # all is printed below
    swept = asyncio.run(sweep_leftovers(settings, is_removing=arguments.remove))
    _print(f"{settings.data_root}/{settings.tenant_id}", swept, is_removed=arguments.remove)
    return 1 if swept.problems else 0


def _print(folder: str, swept: Swept, *, is_removed: bool) -> None:
    lines = [
        f"{each.size:>14} {folder}/{instance_id}/{each.path} ({each.reason})"
        for instance_id, each in swept.leftovers
    ]
    done = "removed" if is_removed else "would be removed (--remove removes them)"
    count = len(swept.leftovers)
    lines.append(f"{count} file{'' if count == 1 else 's'} of {swept.size} bytes {done}")
    sys.stdout.write("\n".join(lines) + "\n")
    for problem in swept.problems:
        sys.stderr.write(f"not swept: {problem}\n")
    if swept.more_problems:
        sys.stderr.write(f"not swept: {swept.more_problems} more\n")


if __name__ == "__main__":
    sys.exit(main())
