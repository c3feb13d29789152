"""`python -m whisperd.bench FD`: the process in which `whisperd bench` runs another program; not for use by hand."""

import socket
import sys

from whisperd.bench.programs import ANSWERED, ASKED, serve
from whisperd.protocol import PipeEnd

serve(PipeEnd(socket.socket(fileno=int(sys.argv[1])), ANSWERED, ASKED))
