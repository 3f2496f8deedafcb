"""Texts with NUL are found by their path, whatever holds them."""

from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct

from optaic.instance.v1.instance_pb2 import Instance
from optaic.run.v1.run_pb2 import Run
from servicekit.texts import find_nul


def paths(message: Message) -> list[str]:
    return list(find_nul(message))


def test_fields_lists_and_maps_are_searched() -> None:
    instance = Instance(name="fine", description="a\0", labels={"k": "v\0", "o\0dd": "v"})
    instance.upstream_refs.add(role="input")
    instance.upstream_refs.add(role="in\0put")
    assert paths(instance) == [
        "description",
        "labels['k']",
        "labels['o\\x00dd']",
        "upstream_refs[1].role",
    ]


def test_within_json_the_path_is_that_of_the_json() -> None:
    parameters = Struct()
    parameters.update({"symbols": ["A", "B\0"], "nested": {"deep": "\0", "whole": 0.0}})
    assert paths(parameters) == ["['nested']['deep']", "['symbols'][1]"]
    assert paths(Run(parameters=parameters)) == ["parameters['nested']['deep']", "parameters['symbols'][1]"]


def test_zeros_that_are_no_text_are_nothing() -> None:
    run = Run(progress_pct=0.0, attempt=256)
    run.metrics.update({"value": 0.0})
    assert b"\0" in run.SerializeToString()
    assert paths(run) == []
