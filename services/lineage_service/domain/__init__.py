"""The rules of lineage, as pure functions over plain values: no database, no protobuf, no clock."""
