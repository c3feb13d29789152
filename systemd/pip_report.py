"""Reads the report of `pip install --dry-run --report` on standard input, for install.sh.

`sizes` tells what pip is about to download, and how large it is. `locked LOCK` prints the lines of a lock file, with their
hashes, for the packages of the report.
"""

from __future__ import annotations

import json
import os
import re
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import unquote, urlsplit

LARGEST = 5
MEGABYTE = 1_000_000
UNLOCKED = {"torch"}  # it comes from one of two indexes, with other files


def size_of(url: str) -> int | None:
    """How many bytes a file or an address has; None where nobody says."""
    parts = urlsplit(url)
    try:
        if parts.scheme == "file":
            return os.stat(unquote(parts.path)).st_size
        request = urllib.request.Request(url, method="HEAD")  # noqa: S310  # pip chose the address
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            return int(answer.headers["Content-Length"])
    except (OSError, TypeError, ValueError):
        return None


def print_sizes(packages: list[tuple[str, str, str]]) -> None:
    """Print the sum and the largest packages."""
    with ThreadPoolExecutor(16) as pool:
        sizes = list(pool.map(size_of, [url for _, _, url in packages]))
    known = sorted(
        ((size, f"{name} {version}") for (name, version, _), size in zip(packages, sizes, strict=True) if size),
        reverse=True,
    )
    unknown = len(packages) - len(known)
    print(
        f"{len(packages)} packages, {sum(size for size, _ in known) / MEGABYTE:,.0f} MB"
        + (f" and {unknown} of unknown size" if unknown else "")
        + "".join(f"\n{size / MEGABYTE:9,.1f} MB  {name}" for size, name in known[:LARGEST])
    )


def print_locked(packages: list[tuple[str, str, str]], lock: str) -> None:
    """Print the entries of the lock file; one that has none ends the program."""
    entries: dict[str, str] = {}
    for entry in re.split(r"(?m)^(?=[\w.-]+==)", lock):
        if match := re.match(r"[\w.-]+(?===)", entry):
            name = canonical(match[0])
            entries[name] = entries.get(name, "") + entry  # a package may have one for each Python
    wanted = {canonical(name) for name, _, _ in packages} - UNLOCKED
    if missing := sorted(wanted - entries.keys()):
        sys.exit(f"the lock file has no entry for {', '.join(missing)}")
    print("".join(entries[name] for name in sorted(wanted)), end="")


def canonical(name: str) -> str:
    """As the index spells it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def main() -> None:
    """Do what the arguments say."""
    packages = [
        (each["metadata"]["name"], each["metadata"]["version"], each["download_info"]["url"])
        for each in json.load(sys.stdin)["install"]
        if "archive_info" in each["download_info"]  # and not the clone
    ]
    if sys.argv[1] == "sizes":
        print_sizes(packages)
    else:
        print_locked(packages, Path(sys.argv[2]).read_text("utf-8"))


if __name__ == "__main__":
    main()
