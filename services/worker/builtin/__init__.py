"""The built-in definitions: `sp500_prices`, `expression`, `delta`, `simple` and the signal guard; they call no service."""
