"""One function per RPC or event, each with its own transaction; SQL and tools belong to store and adapters."""
