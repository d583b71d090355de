"""Measures what the gateway promises, on the real thing: not part of what is installed."""
