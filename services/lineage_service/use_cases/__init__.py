"""One function for each RPC and each batch of events; it opens a transaction, or uses the connection it is given."""
