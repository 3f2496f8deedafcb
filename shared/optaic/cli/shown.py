"""Show an instance after a command has changed it."""

from __future__ import annotations

from optaic.cli.output import Format, is_data, print_data, print_line
from optaic.client import word
from optaic.instance.v1 import instance_pb2


def show_instance(instance: instance_pb2.Instance, output: Format, *news: str) -> None:
    """Write the instance, or one line with its name, what is new of it, and its state."""
    if is_data(output):
        print_data(instance, output)
    else:
        print_line(instance.name, *news, word(instance, "state"))
