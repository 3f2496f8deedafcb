"""One function for each RPC or applied batch of events; each owns its transaction, or says whose it uses."""
