"""Handle each RPC or event with one function that owns its transaction; SQL is in `store`, tools are in adapters."""
