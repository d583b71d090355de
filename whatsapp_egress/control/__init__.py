"""What operators change in a running gateway."""
