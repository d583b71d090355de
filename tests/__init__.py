"""The tests. What hypothesis makes up is the same each time, and may take as long as a busy machine takes."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "determined", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("determined")
