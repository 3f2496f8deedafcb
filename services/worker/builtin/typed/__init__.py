"""Convert texts to typed values, and keep pinned types of columns; no source is read and nothing is written here."""
