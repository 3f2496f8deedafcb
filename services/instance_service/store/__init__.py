"""The tables and queries of instance-service; the caller opens the transaction."""
