"""What holds for all tests."""

from hypothesis import settings

# How long an example takes says more of the machine than of the code. What fails prints how it is tried again anywhere.
settings.register_profile("ours", deadline=None, print_blob=True)
settings.load_profile("ours")
