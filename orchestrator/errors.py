"""Errors that end a Job or keep it from starting. Each names the thing and what to do about it."""


class PerstackError(Exception):
    """The base of all errors a caller can meet. `exit_code` is that of the command line.

    `is_retryable` tells whether the same call may succeed later.
    """

    exit_code = 1
    is_retryable = False


class ConfigError(PerstackError):
    """`perstack.toml`, an env file or an option is wrong; nothing was started."""

    exit_code = 2


class MissingKeyError(ConfigError):
    """A provider's key or a skill's variable is not set."""


class UnsupportedError(ConfigError):
    """What was asked for is not there in this version."""


class SandboxError(PerstackError):
    """A sandbox could not be started, or was lost."""


class StoreError(PerstackError):
    """The history cannot be written or read."""
