"""A pipe between a test, in the place of the supervisor, and a worker in the same process."""

import socket

from whisperd.protocol import FROM_WORKER, TO_WORKER, PipeEnd


def line_pair():
    """The supervisor's end, which waits here, and the worker's."""
    ours, theirs = socket.socketpair()
    return PipeEnd(ours, TO_WORKER, FROM_WORKER), PipeEnd(theirs, FROM_WORKER, TO_WORKER)
