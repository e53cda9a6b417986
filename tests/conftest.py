"""What holds for all tests."""

from hypothesis import settings

settings.register_profile("ours", deadline=None)  # how long an example takes says more of the machine than of the code
settings.load_profile("ours")
