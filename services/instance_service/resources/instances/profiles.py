"""Convert the profile of an output to the type that the rules use."""

from __future__ import annotations

from instance_service.domain.signal_contracts import Column, Profile
from optaic.run.v1.run_pb2 import ColumnProfile, OutputProfile


def profile_of(serialized: bytes) -> Profile:
    """Convert a serialized profile to the type that the rules use."""
    message = OutputProfile.FromString(serialized)
    columns = {column.name: _column(column) for column in message.columns}
    return Profile(message.row_count, tuple(message.key_columns), columns)


def _column(message: ColumnProfile) -> Column:
    return Column(
        message.name,
        message.type,
        message.is_numeric,
        message.null_count,
        message.nan_count,
        message.infinite_count,
        message.min_value if message.HasField("min_value") else None,
        message.max_value if message.HasField("max_value") else None,
    )
