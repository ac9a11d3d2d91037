"""Errors that either side raises about the contract itself."""


class ContractError(Exception):
    """What the other side sent does not fit the contract."""


class ForbiddenTransition(ContractError):
    """The state machine has no such transition here."""


class WireError(ContractError):
    """A frame is malformed, too large, out of its window or of another protocol version."""
