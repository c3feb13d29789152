"""Reads a secret from a file, or from a systemd credential, so that it stands in no configuration and no list of processes."""

from __future__ import annotations

import os
from pathlib import Path


class SecretError(ValueError):
    """A secret cannot be used; the message says why."""


def read_credential(path: Path) -> str:
    """Return the text of a secret; a relative path is the name of a systemd credential (systemd.exec(5), LoadCredential=).

    Raises:
        SecretError: it is missing, cannot be read or is not text.
    """
    title = f"the secret {path}"
    if not path.is_absolute():
        title = "the systemd credential"  # its name may be the secret itself, by mistake
        directory = os.environ.get("CREDENTIALS_DIRECTORY")
        if not directory:
            raise SecretError(
                "there is no systemd credential of this name: give the path of a file, or see LoadCredential="
            )
        path = Path(directory) / path
    try:
        return path.read_text("utf-8").strip()
    except OSError as error:
        raise SecretError(f"{title} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SecretError(f"{title} is not text") from error
