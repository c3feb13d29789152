"""The process that renders transcripts again: `python -m whisperd.worker.rerender DIRECTORY`, which the supervisor starts.

It reads the request in its directory and the recorded transcript in the outbox, and writes nowhere but in that directory. The
supervisor publishes from there. A transcript that a user can change, and patterns that a user can choose, are read here, so
that they can neither stop the supervisor nor take it over.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from whisperd.core.correction import OUTPUTS, REPORT, REQUEST, RenderRequest
from whisperd.core.errors import CorrectionRefused
from whisperd.output.again import RenderedAgain, render_again
from whisperd.spool.durable import Folder, write

RECORDED_BYTES_MAX = 512 << 20


def main(directory: Path) -> int:
    """Render what the request in the directory asks for, and write files and report there; returns the exit status."""
    with Folder(directory) as own:
        rendered = attempt(RenderRequest.decode(own.read(REQUEST)))
        if isinstance(rendered, RenderedAgain):
            with Folder(directory, (OUTPUTS,), create=True) as outputs:
                for kind, content in rendered.files.items():
                    write(outputs, kind, content)
            report: dict[str, Any] = {
                "digests": {kind: hashlib.sha256(content).hexdigest() for kind, content in rendered.files.items()},
                "replacements": [dataclasses.asdict(each) for each in rendered.replacements],
            }
        else:
            report = {"refusal": {"message": rendered.message, "hint": rendered.hint}}
        write(own, REPORT, json.dumps(report).encode("ascii"))
    return 0


def attempt(request: RenderRequest) -> RenderedAgain | CorrectionRefused:
    """Read the recorded transcript and render it again; returns the reason if that cannot be done."""
    try:
        with Folder(Path(request.outbox), request.folders) as outbox:
            return render_again(request, outbox.read(request.file, RECORDED_BYTES_MAX))
    except OSError as error:
        reason = f"the recorded transcript {request.file} cannot be read: {error.strerror}"
        return CorrectionRefused(reason, hint="put it back, or transcribe again with `whisperd retry --done`")
    except CorrectionRefused as error:
        return error


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
