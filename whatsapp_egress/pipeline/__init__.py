"""The way of a message: in, in order, tried, settled."""
