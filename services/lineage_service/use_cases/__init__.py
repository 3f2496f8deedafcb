"""One function for each RPC, event or task of a loop, in a transaction of its own or in that of its event."""
