"""Writes the parts of the documentation that are made from the schema: `python tests/support/generate_docs.py`.

A page keeps its prose; what is between `<!-- generated: NAME -->` and `<!-- end -->` is replaced. `pages` returns what the
files should contain, so that a test can say which are out of date.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import BaseModel

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `support`, when it is run as a program

from support.status_schema import DOCS, StatusFile, StatusReport
from whisperd.settings.config import Config

if TYPE_CHECKING:
    from collections.abc import Iterator

COMMAND = "python tests/support/generate_docs.py"
FOR_TESTS = {"script"}
MEBIBYTE = 1 << 20


def pages() -> dict[Path, str]:
    """Return the content that each generated file should have."""
    made = {"keys": keys_tables(), "status-file": fields_table(StatusFile), "status-report": fields_table(StatusReport)}
    found = {}
    for path in sorted(DOCS.glob("*.md")):
        page = path.read_text("utf-8")
        found[path] = re.sub(
            r"(<!-- generated: ([\w-]+) -->\n).*?(<!-- end -->)",
            lambda match: f"{match[1]}\n{made[match[2]]}\n{match[3]}",
            page,
            flags=re.DOTALL,
        )
    found[DOCS / "status.schema.json"] = json_schema(StatusFile)
    found[DOCS / "status-report.schema.json"] = json_schema(StatusReport)
    return found


def keys_tables() -> str:
    """Make a table of keys for the top level and for each section of whisperd.yaml."""
    top, sections = [], []
    for name, field in Config.model_fields.items():
        default = field.get_default(call_default_factory=True)
        if isinstance(default, BaseModel):
            sections += [f"## {name}", _sentence(type(default)), _table(_rows(type(default), f"{name}."))]
        elif name not in FOR_TESTS:
            top.append(_row(name, field))
    return "\n\n".join(["## The top level", _table(top), *sections]) + "\n"


def fields_table(model: type[BaseModel]) -> str:
    """Make a table of the fields of a JSON document."""
    rows = [f"| `{field.alias or name}` | {field.description} |" for name, field in model.model_fields.items()]
    return "\n".join(["| field | meaning |", "| --- | --- |", *rows]) + "\n"


def json_schema(model: type[BaseModel]) -> str:
    """Make a JSON Schema file."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema"} | model.model_json_schema()
    return json.dumps(schema, indent=2) + "\n"


def _rows(model: type[BaseModel], prefix: str) -> list[str]:
    return [_row(f"{prefix}{name}", field) for name, field in model.model_fields.items()]


def _row(key: str, field: Any) -> str:
    default = Path("/var/lib/whisperd/models") if key == "models_directory" else field.get_default()
    return f"| `{key}` | `{_shown(default)}` | {field.description} |"


def _table(rows: list[str]) -> str:
    return "\n".join(["| key | default | meaning |", "| --- | --- | --- |", *rows])


def _sentence(model: type[BaseModel]) -> str:
    return " ".join(str(model.__doc__).split())


def _shown(value: Any) -> str:
    """Show a default as one writes it in YAML."""
    if isinstance(value, float):
        return f"{value:.12g}"
    if isinstance(value, int) and not isinstance(value, bool) and value and value % MEBIBYTE == 0:
        return f"{value // MEBIBYTE}M"
    if isinstance(value, tuple):
        return f"[{', '.join(map(_shown, value))}]"
    if value == "":
        return '""'
    text = str(value) if isinstance(value, Path) else value
    return yaml.safe_dump(text, default_flow_style=True, width=10**6).removesuffix("...\n").strip()


def out_of_date() -> Iterator[Path]:
    """Yield the files that differ from what the schema says."""
    for path, text in pages().items():
        if not path.exists() or path.read_text("utf-8") != text:
            yield path


if __name__ == "__main__":
    for changed in list(out_of_date()):
        changed.write_text(pages()[changed], "utf-8")
        print(f"written: {changed.relative_to(DOCS.parents[1])}")  # noqa: T201
