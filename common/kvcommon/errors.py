"""The root of our exceptions."""


class KVClusterError(Exception):
    """Anything of ours that went wrong: says what, with which value, and what to do."""


class ConfigurationError(KVClusterError):
    """A setting, flag, manifest or file that can't be used as it is; the process ends with its text and exit code 2."""
