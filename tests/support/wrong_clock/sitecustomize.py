"""With this directory in PYTHONPATH an interpreter's wall clock is wrong by the seconds in the file `WRONG_CLOCK` names.

Of a process alone, children included: the machine's clock is everybody's. libfaketime would do, but for the monotonic
sleeps that it lets fail.
"""

import datetime as dt
import os
import time

_time, _time_ns = time.time, time.time_ns


def _seconds():
    with open(os.environ["WRONG_CLOCK"], encoding="ascii") as file:
        return int(file.read())


class WrongTime(dt.datetime):
    """What `now` says is wrong."""

    @classmethod
    def now(cls, tz=None):
        return super().now(tz) + dt.timedelta(seconds=_seconds())


time.time = lambda: _time() + _seconds()
time.time_ns = lambda: _time_ns() + _seconds() * 10**9
dt.datetime = WrongTime
