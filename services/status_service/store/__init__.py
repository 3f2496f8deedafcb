"""The tables and queries of status-service; the caller opens the transaction."""
