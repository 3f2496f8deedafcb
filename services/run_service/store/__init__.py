"""The tables and queries of run-service; the caller opens the transaction."""
