"""The rules of statuses, as pure functions over plain values: no database, no protobuf, no clock."""
