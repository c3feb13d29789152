"""The one thing in a rendered page that depends on where its job goes: the link to the original.

The worker wrote the page for the place that the job had then. A name that was taken meanwhile gives the job another
place, and the page must not play a stranger's recording.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from whisperd.core.job import original_url
from whisperd.spool.durable import write

if TYPE_CHECKING:
    from whisperd.spool.durable import Folder

PAGE = "html"
_LONGEST_BYTES = 1 << 30
_LINK = re.compile(rb'(?<==")(?:\.\./)+done/[^"]*')


def address(rendered: Folder, place: str) -> None:
    """Let the page in a job's folder point to the original at this place; safe to repeat, and to cut off.

    A quote in the text of the page is escaped, so that nothing but a link of the page's own looks like one.
    """
    if not rendered.exists(PAGE):
        return
    page = rendered.read(PAGE, _LONGEST_BYTES)
    url = original_url(place).encode("ascii")
    addressed = _LINK.sub(lambda _: url, page)
    if addressed != page:
        write(rendered, PAGE, addressed)
