"""The registry of definitions: publishing, the states of versions, reading; a version's content never changes."""
