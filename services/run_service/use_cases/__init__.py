"""One function per RPC or event; each owns its transaction. How answers are shaped is not known here."""
