"""The program `devstack supervise` of a stack without a worker, for tests that have a worker of their own."""

import sys

import devstack
from devstack import programs


def _name_none(settings: devstack.Settings) -> dict[str, str]:
    del settings
    return {}


if __name__ == "__main__":
    programs.name_workers = _name_none
    sys.exit(devstack.run())
