"""The three outside worlds, each spoken to by one module."""
