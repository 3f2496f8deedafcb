"""Read the inputs of a run: which version of each upstream it reads, and how."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping

from optaic.common.v1 import flow_pb2
from optaic.instance.v1 import instance_pb2
from optaic.plugins import ChangedDates, MissingInput
from optaic.rules.roles import OPTIMIZER
from optaic.run.v1 import run_pb2
from servicekit.enums import enum_word
from worker.recipe import Input
from worker.recipe_reading.components import Versions
from worker.recipe_reading.outputs import form_of


def read_inputs(
    run: run_pb2.Run,
    named: Mapping[tuple[str, str], str],
    upstreams: Mapping[str, instance_pb2.Instance],
    versions: Versions,
) -> tuple[Input, ...]:
    """Return the inputs of a run that are tables, in the order of its pins; a trained model is none.

    Raises:
        MissingInput: an upstream has no output, or none that can be read.
    """
    inputs = []
    for pinned in run.input_versions:
        if is_read_by_settings(run, pinned) or pinned.flow_kind == flow_pb2.FLOW_KIND_TRAINING:
            continue
        upstream = upstreams[pinned.instance_id]
        # As the reader's expressions name it, whatever it was called when it was computed.
        name = named.get((pinned.role, pinned.instance_id), "") or pinned.instance_name or upstream.name
        form = form_of(upstream, versions)
        if not pinned.physical_version:
            flow = enum_word(flow_pb2.FlowKind, pinned.flow_kind)
            raise MissingInput(
                f"upstream {name} ({pinned.role}) has no output to read; run its flow {flow} first"
            )
        if form is None:
            raise MissingInput(
                f"upstream {name} ({pinned.role}) gives no dataset to read; name another one in upstream_refs"
            )
        inputs.append(
            Input(
                pinned.role,
                name,
                pinned.instance_id,
                pinned.version,
                pinned.digest,
                form.at(pinned.uri, pinned.physical_version),
                form.value_column,
                ChangedDates(_read_day(pinned.change_start), _read_day(pinned.change_end)),
            )
        )
    return tuple(inputs)


def _read_day(text: str) -> dt.date | None:
    return dt.date.fromisoformat(text) if text else None


def is_read_by_settings(run: run_pb2.Run, pinned: flow_pb2.InputVersion) -> bool:
    """Return whether a run reads only the definition and the settings of an upstream, whatever output that has."""
    return run.flow_kind == flow_pb2.FLOW_KIND_BACKTEST and pinned.role == OPTIMIZER
