"""What an interrupt does while a command starts."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def ending_the_process() -> Iterator[None]:
    """Let an interrupt end this process without a traceback: there is nothing to keep yet.

    Raised as ``KeyboardInterrupt`` it would come out of whatever is being imported. An
    interrupt that is ignored, as in a background job of a shell, stays ignored.
    """
    raises = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not raises or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
