"""Change and read projects."""
