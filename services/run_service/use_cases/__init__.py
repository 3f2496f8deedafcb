"""One function for each RPC and event; each owns its transaction."""
