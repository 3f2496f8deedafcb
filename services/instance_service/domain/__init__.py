"""The rules of definitions and instances, as pure functions of the standard library: no protobuf, no SQL, no network."""
