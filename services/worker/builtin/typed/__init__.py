"""Types of columns: convert texts to values, and keep pinned types; reads no source and writes nothing."""
