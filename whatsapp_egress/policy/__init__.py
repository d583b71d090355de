"""Decisions without I/O: what an answer means, how long to wait, how fast to go."""
