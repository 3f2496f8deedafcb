"""Read what others write: which files, hosts and databases a source may name, and which secrets go where."""
