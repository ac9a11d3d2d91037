"""How `perstack` commands end."""

from enum import IntEnum


class ExitCode(IntEnum):
    COMPLETED = 0
    ERROR = 1
    USAGE = 2
    WAITING_FOR_ANSWER = 3
    STEP_LIMIT = 4
    CANCELLED = 130
