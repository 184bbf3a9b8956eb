"""Settings of all tests."""

from hypothesis import settings

# A loaded machine is no failure: property tests have no deadline, and the same examples every time.
settings.register_profile("pfdhpc", deadline=None, derandomize=True)
settings.load_profile("pfdhpc")
