"""A folder of wheels with which pip makes an environment in seconds: stubs that lead to the packages of the tests."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from itertools import chain
from pathlib import Path

from support.service import PACKAGES, REPOSITORY

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))


def make_wheels(folder: Path) -> None:
    """Fill a folder with what builds whisperd, and with a stub of each package that it or one of its extras needs.

    The stub of torch puts all packages of the tests on the path, as they are bound in the lab.
    """
    folder.chmod(0o755)
    build = PROJECT["build-system"]["requires"]
    subprocess.run([sys.executable, "-m", "pip", "wheel", "--quiet", "--wheel-dir", folder, *build], check=True)
    project = PROJECT["project"]
    for line in chain(project["dependencies"], *project["optional-dependencies"].values()):
        name = re.match(r"[\w-]+", line)[0]
        make_stub(folder, name, public_version(name), packages=name == "torch")


def public_version(name: str) -> str:
    """The version of a package of the tests, without what a builder adds, such as +cpu."""
    return metadata.version(name).partition("+")[0]


def make_stub(folder: Path, name: str, version: str, *, packages: bool = False) -> None:
    """Write a wheel without code."""
    stem = f"{name.replace('-', '_')}-{version}"
    found = [Path(entry) for entry in sys.path if Path(entry).name in {"site-packages", "dist-packages"}]
    with zipfile.ZipFile(folder / f"{stem}-py3-none-any.whl", "w") as wheel:
        if packages:
            wheel.writestr("packages.pth", "\n".join(str(PACKAGES / str(number)) for number in range(len(found))))
        about = f"{stem}.dist-info"
        wheel.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        wheel.writestr(
            f"{about}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{about}/RECORD", "")
