"""The operators' page: static files, and the resource that serves them."""
