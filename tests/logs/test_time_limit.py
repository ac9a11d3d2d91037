"""What cannot be asked to stop is stopped."""

import re
import signal
import threading
import time

import pytest

from orchestrator.logs.time_limit import time_limit


def test_a_regular_expression_that_would_take_years_is_stopped() -> None:
    began = time.monotonic()
    with pytest.raises(TimeoutError), time_limit(0.05):
        re.search("(a+)+$", "a" * 60 + "b")
    assert time.monotonic() - began < 10


def test_what_is_quick_is_left_alone_and_everything_is_put_back() -> None:
    before = signal.getsignal(signal.SIGALRM)
    with time_limit(60):
        assert signal.getsignal(signal.SIGALRM) is not before
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_an_error_inside_puts_everything_back_too() -> None:
    before = signal.getsignal(signal.SIGALRM)
    with pytest.raises(KeyError), time_limit(60):
        raise KeyError
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_in_another_thread_there_is_no_limit_and_no_error() -> None:
    done = threading.Event()

    def work() -> None:
        with time_limit(60):
            done.set()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done.is_set()
