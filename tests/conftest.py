"""What all tests share: the landing gate tries the same examples every time; ``scripts/deep`` (and
``--hypothesis-profile=random``) looks for new ones."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "gate",
    derandomize=True,
    deadline=None,  # the machine is shared: time is measured in bench/, never in a test
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("random", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("gate")
