"""Version 1 of the API; everything but the protos is generated."""
