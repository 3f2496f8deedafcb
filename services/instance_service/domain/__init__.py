"""The rules of definitions and instances: pure, standard library only; nothing here knows a wire or a table."""
