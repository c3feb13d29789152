"""The table of commands, and how one of them is found and called."""

import pkgutil
import subprocess
import sys

import pytest

from whisperd import cli


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_a_command_of_the_table_has_a_module_with_options(name):
    """Adding a command is one module and one line of the table."""
    assert name in {module.name for module in pkgutil.iter_modules(cli.__path__)}
    assert f"whisperd {name}" in {parser.prog for parser in cli.parsers(cli.parser())}


def test_a_command_imports_no_other():
    """`whisperd status` in a script starts quickly: the modules of other commands stay unread."""
    program = """
import sys
from whisperd import cli
cli.parser("status").parse_args(["status", "--json"])
modules = {name.rpartition(".")[2] for name in sys.modules if name.startswith("whisperd.cli.")}
print(sorted(modules & {*cli.COMMANDS}))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout == "['status']\n"


def test_a_command_that_does_not_exist_is_wrong_usage(capsys):
    """Exit 2, and the commands that exist are listed."""
    with pytest.raises(SystemExit) as ended:
        cli.main(["transcibe"])

    assert ended.value.code == 2
    assert "transcribe" in capsys.readouterr().err
