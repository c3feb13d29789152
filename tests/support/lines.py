"""A pipe between a test, in the place of the supervisor, and a worker in the same process."""

import socket

from whisperd.protocol import FROM_WORKER, TO_WORKER, Line


def line_pair():
    """The supervisor's end, which waits here, and the worker's."""
    ours, theirs = socket.socketpair()
    return Line(ours, TO_WORKER, FROM_WORKER), Line(theirs, FROM_WORKER, TO_WORKER)
