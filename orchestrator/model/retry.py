"""How long to wait before a model is asked again."""

BASE_S = 0.5
"""Seconds before the first retry; they double with each further one."""

CAP_S = 30.0
"""The longest wait that is our own choice."""

MAX_RETRY_AFTER_S = 120.0
"""The longest wait that a provider can impose: a Job should rather fail and say so than sleep for an hour."""


def backoff_s(attempt: int, retry_after_s: float | None, jitter: float) -> float:
    """Seconds to wait after failed attempt `attempt` (from 1).

    `retry_after_s` is what the provider asked for: never undercut, and stretched a little by `jitter` (0 to 1, at
    random), so that Runs which were refused together do not come back together. Without it the wait is exponential,
    between half of the full delay and all of it.
    """
    delay = min(BASE_S * 2.0 ** min(attempt - 1, 30), CAP_S)
    if retry_after_s is None:
        return delay * (0.5 + jitter / 2)
    return min(max(retry_after_s, 0.0) + BASE_S * jitter, MAX_RETRY_AFTER_S)
