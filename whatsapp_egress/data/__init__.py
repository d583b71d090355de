"""Tables the service ships."""
