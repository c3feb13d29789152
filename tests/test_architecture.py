"""The rules of the house, as tables: who may import whom, what a module may not do, and who is excused and why."""

import ast
import graphlib
import importlib.util
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import pytest

import whisperd

PACKAGE = Path(whisperd.__file__).parent

# Arrows: a room imports itself and what stands in its row, in functions and for the type checker too.
# The longest name wins: `engine.weights` has a row of its own. A module without a row fails: give a new room its row.
VALUES = {"core"}
SETTINGS = VALUES | {"settings"}
EVERYTHING = {""}
ARROWS = {
    "core": set(),
    "settings": VALUES,
    "protocol": VALUES,
    "container": set(),
    "samples": set(),
    # the supervisor's side
    "intake": SETTINGS | {"container", "spool.durable", "spool.layout", "spool.names"},
    "spool": SETTINGS,
    "listeners": SETTINGS | {f"spool.{name}" for name in ("durable", "layout", "names", "status_file")},
    "daemon": SETTINGS | {"intake", "spool", "protocol", "listeners"},
    # the worker's side
    "engine": VALUES,
    "engine.weights": VALUES | {"engine", "spool.durable"},
    "engine.whisper_batched.timings": VALUES | {"engine", "spool.durable"},
    "output": VALUES,
    "media": VALUES | {"container"},
    "diarization": VALUES | {"engine.weights.speakers"},
    "worker": VALUES | {"media", "diarization", "engine", "output", "protocol", "spool.durable"},
    # the user's side
    "bench": SETTINGS | {"protocol", "engine", "spool", "media", "diarization"},
    "cli": EVERYTHING,
    "__main__": {"cli"},
}


@dataclass(frozen=True)
class Module:
    """One file of the package; `name` is without `whisperd.`, the package's own `__init__` is ""."""

    name: str
    source: str
    is_package: bool = False

    @property
    def tree(self):
        return ast.parse(self.source)

    def calls(self):
        """Each call as `(what is called, the call)`."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Call):
                yield ast.unparse(node.func), node

    def imports(self):
        """The full name of each thing imported: at the top, in a function or for the type checker."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                origin = ".".join([*self.anchor(node.level), *filter(None, [node.module])])
                yield from (f"{origin}.{alias.name}" for alias in node.names)

    def anchor(self, level):
        """What the dots of a relative import stand for."""
        if not level:
            return []
        parts = ["whisperd", *filter(None, self.name.split("."))]
        return parts[: len(parts) - level + self.is_package]


def modules_of(package):
    """All modules below a directory."""
    found = []
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        found.append(Module(".".join(parts[:-1] if is_package else parts), path.read_text("utf-8"), is_package))
    return found


MODULES = modules_of(PACKAGE)


def graph_of(modules):
    """For each module, the modules of the package that it imports."""
    names = {module.name for module in modules}
    graph = {}
    for module in modules:
        inside = {name.removeprefix("whisperd").lstrip(".") for name in module.imports() if is_within(name, "whisperd")}
        graph[module.name] = {name if name in names else name.rpartition(".")[0] for name in inside} - {""}
    return graph


def is_within(name, room):
    """Whether a dotted name is the room, or something in it."""
    return room in {"", name} or name.startswith(f"{room}.")


def row_of(name, table):
    """The most special row of a table that a module stands in; None where there is none."""
    return max((room for room in table if is_within(name, room)), key=len, default=None)


def wrong_arrows(modules):
    """Each import that the table of arrows does not allow, and each module that it does not know."""
    for name, targets in graph_of(modules).items():
        room = row_of(name, ARROWS)
        if room is None:
            if name or targets:
                yield f"{name or '__init__'} has no row in the table of arrows"
            continue
        for target in sorted(targets):
            if not any(is_within(target, allowed) for allowed in {room, *ARROWS[room]}):
                yield f"{name} -> {target}"


def cycle(modules):
    """The first circle of imports, as a path; empty where there is none."""
    try:
        graphlib.TopologicalSorter(graph_of(modules)).prepare()
    except graphlib.CycleError as error:
        return " -> ".join(error.args[1])
    return ""


def classes_of(modules):
    """Each class of the package as `(module, its node)`."""
    for module in modules:
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ClassDef):
                yield module.name, node


def attributes_of(node):
    """What an object of a class holds: the fields of a dataclass, and each `self.x` that a method assigns."""
    fields = {
        each.target.id for each in node.body if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)
    }
    return fields | {
        each.attr
        for method in node.body
        if isinstance(method, ast.FunctionDef)
        for each in ast.walk(method)
        if isinstance(each, ast.Attribute) and isinstance(each.ctx, ast.Store) and ast.unparse(each.value) == "self"
    }


def shared_class_names(modules):
    """Each name that several classes have, with the modules in which they stand."""
    homes = {}
    for module, node in classes_of(modules):
        homes.setdefault(node.name, []).append(module)
    return {name: where for name, where in homes.items() if len(where) > 1}


def large_classes(modules):
    """Each class with more attributes than one concept needs, and how many it has."""
    sizes = {f"{module}.{node.name}": len(attributes_of(node)) for module, node in classes_of(modules)}
    return {name: size for name, size in sizes.items() if size > ATTRIBUTES_MAX}


def retired_words(modules):
    """Each module, class or function whose name has a word that the house no longer uses."""
    for module in modules:
        named = [module.name.rpartition(".")[2]]
        named += [node.name for node in ast.walk(module.tree) if isinstance(node, ast.ClassDef | ast.FunctionDef)]
        for name in named:
            words = {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)}
            yield from (f"{module.name}: {name} has {word!r}" for word in sorted(words & RETIRED))


MODULES_MAX = 190  # a new room or engine may raise it; splitting a concept may not
ATTRIBUTES_MAX = 14

LARGE_CLASSES = {
    "core.job.Job": "the record of a job, each a key of job.json",
    "core.options.TranscribeOptions": "a list of options, each a key of whisperd.yaml",
    "settings.sections.Config": "a list of options, each a key or section of whisperd.yaml",
    "settings.sections.NotificationOptions": "a list of options, each a key of whisperd.yaml",
    "listeners.metrics.Metrics": "a list of metrics, each a row of the README's table",
}

RETIRED = {
    "board", "chores", "earlier", "halves", "journal", "lane", "lanes", "note", "notes", "orders", "pair", "pairs",
    "places", "shown", "sidecar", "sidecars", "sight", "stretch", "telling", "tellings", "turns",
}  # fmt: skip

# What no module may do, and the few that may.


def bare_writes(module):
    for called, call in module.calls():
        method = called.rpartition(".")[2]
        arguments = [*call.args, *(keyword.value for keyword in call.keywords if keyword.arg == "mode")]
        modes = [a.value for a in arguments if isinstance(a, ast.Constant) and isinstance(a.value, str)]
        if called == "os.open":
            writes = re.search(r"O_(WRONLY|RDWR|CREAT)", ast.unparse(call))
        elif method in {"open", "fdopen"}:
            writes = any(re.fullmatch(r"[bt]?[rwax][bt+]*", mode) and set(mode) & set("wax+") for mode in modes)
        elif (
            method == "replace"
        ):  # Path.replace takes the target alone, str.replace two texts, dataclasses.replace names
            writes = called == "os.replace" or (called.count(".") and len(call.args) == 1 and not call.keywords)
        else:
            writes = method in {"write_text", "write_bytes", "rename", "renames"} or called == "shutil.move"
        if writes:
            yield f"line {call.lineno}: {called}"


def shells(module):
    forbidden = {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"}
    for called, call in module.calls():
        shell = any(k.arg == "shell" and ast.unparse(k.value) != "False" for k in call.keywords)
        if shell or called in forbidden or called.endswith("create_subprocess_shell"):
            yield f"line {call.lineno}: {called}"


def process_pools(module):
    for name in module.imports():
        if is_within(name, "multiprocessing.pool") or name in PROCESS_POOLS:
            yield f"imports {name}"
    for called, call in module.calls():
        if called in PROCESS_POOLS or re.search(r"context(\(.*\))?\.Pool$", called):
            yield f"line {call.lineno}: {called}"


def unpickling(module):
    """Imports that write or read code as data; `multiprocessing` sends whatever it is given as a pickle."""
    for name in module.imports():
        if name.partition(".")[0] in {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"} or (
            is_within(name, "multiprocessing") and name != "multiprocessing.connection.wait"
        ):
            yield f"imports {name}"
    for called, call in module.calls():
        options = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        is_torch = called == "torch.load" and options.get("weights_only") != "True"
        if is_torch or options.get("allow_pickle", "False") != "False":
            yield f"line {call.lineno}: {called}"


PROCESS_POOLS = {
    "multiprocessing.Pool",
    "concurrent.futures.ProcessPoolExecutor",
    "concurrent.futures.process.ProcessPoolExecutor",
}


@dataclass(frozen=True)
class Rule:
    find: object
    because: str
    excused: MappingProxyType = field(default_factory=lambda: MappingProxyType({}))  # module or room -> why


RULES = {
    "writes": Rule(
        bare_writes,
        "every write of state goes through spool/durable.py: a crash must leave the old content or the new",
        MappingProxyType(
            {
                "spool.durable": "is the one place",
                "spool.layout": "the lock file, whose content is only for show, and the probe for one filesystem",
                "media.decode": "streams decoded audio into the job's directory",
                "worker.boot": "tells the kernel through /proc whom to kill when memory runs out",
                "worker.resume_log": "appends, each line with its checksum; a torn end is cut off when it is read",
                "engine.weights.fetch": "streams gigabytes under a temporary name, renamed by spool/durable.py",
            }
        ),
    ),
    "shells": Rule(shells, "a file name must never be read by a shell"),
    "process pools": Rule(process_pools, "one dead child breaks all of their work, and none can be killed alone"),
    "unpickling": Rule(unpickling, "who writes a pickle runs code in whoever reads it; processes talk by protocol.py"),
}


@pytest.mark.parametrize("name", ["whisperd.cli", "whisperd.daemon.supervisor"])
def test_the_supervisor_side_loads_no_model_code(name):
    """Importing it loads neither torch nor numpy nor whisper: it starts fast, stays small and cannot hang in them."""
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not written yet")
    program = f"import sys, {name}; print({{'torch', 'numpy', 'whisper'}} & {{*sys.modules}})"

    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=PACKAGE.parent, capture_output=True, text=True, check=False
    )

    assert (ran.returncode, ran.stdout) == (0, "set()\n"), ran.stderr


def test_arrows_point_one_way():
    """Each room imports only what its row in the table names."""
    assert list(wrong_arrows(MODULES)) == []


def test_no_imports_go_in_a_circle():
    """No module needs itself, however long the way."""
    assert cycle(MODULES) == ""


def test_no_two_classes_share_a_name():
    """A name is used for one thing, so that a reader who searches for it finds one."""
    assert shared_class_names(MODULES) == {}


def test_no_class_is_several():
    """A class with more attributes than a reader keeps in mind is split."""
    assert {name: size for name, size in large_classes(MODULES).items() if name not in LARGE_CLASSES} == {}


def test_retired_words_do_not_come_back():
    """Each concept has the one name that CONTRIBUTING lists."""
    assert list(retired_words(MODULES)) == []


def test_the_package_has_few_modules():
    """A module is one concept: what is always opened together is one file."""
    assert sum(not module.is_package for module in MODULES) <= MODULES_MAX


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_no_module_breaks_the_rule(rule):
    """What the table of rules forbids is done by nobody but those whom it excuses."""
    broken = [
        f"whisperd.{module.name}: {found}"
        for module in MODULES
        if row_of(module.name, rule.excused) is None
        for found in rule.find(module)
    ]

    assert broken == [], rule.because


@pytest.mark.parametrize(("rule", "name"), [(key, name) for key, rule in RULES.items() for name in rule.excused])
def test_no_excuse_outlives_its_reason(rule, name):
    """Who no longer breaks a rule loses the excuse, so that breaking it again is seen."""
    modules = [module for module in MODULES if is_within(module.name, name)]

    assert any(found for module in modules for found in RULES[rule].find(module))


# The rules themselves are tried on code that breaks them, and on code that does not.


@pytest.mark.parametrize(
    ("rule", "source"),
    [
        pytest.param("writes", "open('x', 'w')", id="open"),
        pytest.param("writes", "open('x', mode='ab')", id="open, mode by name"),
        pytest.param("writes", "def f(path):\n    with path.open('xb') as file: ...", id="Path.open"),
        pytest.param("writes", "os.fdopen(fd, 'r+b')", id="fdopen"),
        pytest.param("writes", "os.open(name, os.O_WRONLY | os.O_CREAT)", id="os.open"),
        pytest.param("writes", "path.write_text('x')", id="write_text"),
        pytest.param("writes", "path.write_bytes(b'x')", id="write_bytes"),
        pytest.param("writes", "os.rename(a, b)", id="os.rename"),
        pytest.param("writes", "os.replace(a, b)", id="os.replace"),
        pytest.param("writes", "path.rename(other)", id="Path.rename"),
        pytest.param("writes", "path.replace(other)", id="Path.replace"),
        pytest.param("shells", "subprocess.run(x, shell=True)", id="shell"),
        pytest.param("shells", "os.system('ls')", id="os.system"),
        pytest.param("process pools", "def f():\n    import multiprocessing.pool", id="import"),
        pytest.param("process pools", "from multiprocessing.pool import ThreadPool", id="from"),
        pytest.param("process pools", "from concurrent.futures import ProcessPoolExecutor", id="executor"),
        pytest.param("process pools", "multiprocessing.get_context('spawn').Pool(2)", id="of a context"),
        pytest.param("unpickling", "def f():\n    import pickle", id="pickle"),
        pytest.param("unpickling", "from marshal import loads", id="marshal"),
        pytest.param("unpickling", "from multiprocessing.connection import Connection", id="connection"),
        pytest.param("unpickling", "from multiprocessing import Pipe", id="pipe"),
        pytest.param("unpickling", "import multiprocessing", id="multiprocessing"),
        pytest.param("unpickling", "torch.load(path)", id="torch.load"),
        pytest.param("unpickling", "torch.load(path, weights_only=False)", id="torch.load, not only weights"),
        pytest.param("unpickling", "np.load(path, allow_pickle=True)", id="numpy.load"),
    ],
)
def test_a_rule_finds_what_it_forbids(rule, source):
    """No rule is kept only because it sees nothing."""
    assert len(list(RULES[rule].find(Module("daemon.x", source)))) == 1


@pytest.mark.parametrize(
    "source",
    [
        pytest.param("open('wax')\nopen(path, 'rb')\npath.open('rb')\nos.fdopen(fd, 'rb')", id="reading"),
        pytest.param("os.open(name, os.O_RDONLY | os.O_CLOEXEC)", id="os.open for reading"),
        pytest.param(
            "name.replace('a', 'b')\nreplace(job, id='x')\ndataclasses.replace(job, id='x')", id="other replace"
        ),
        pytest.param("subprocess.run(['ls'], shell=False)", id="no shell"),
        pytest.param("from multiprocessing.connection import wait", id="waiting"),
        pytest.param("torch.load(path, weights_only=True)\nnp.load(path)\njson.loads(text)", id="data alone"),
        pytest.param("from whisperd.daemon.pool import Pool\nPool(2)", id="the pool of this house"),
    ],
)
def test_a_rule_lets_the_rest_be(source):
    """No rule forbids what only looks alike."""
    assert [found for rule in RULES.values() for found in rule.find(Module("daemon.x", source))] == []


@pytest.mark.parametrize(
    ("name", "source", "arrow"),
    [
        pytest.param("daemon.x", "import whisperd.engine", "daemon.x -> engine", id="import"),
        pytest.param("daemon.x", "from whisperd.engine import api", "daemon.x -> engine.api", id="from a package"),
        pytest.param("daemon.x", "from whisperd.engine.api import E", "daemon.x -> engine.api", id="from a module"),
        pytest.param("daemon.x", "from whisperd import engine", "daemon.x -> engine", id="from the top"),
        pytest.param("daemon.x", "from ..engine.api import E", "daemon.x -> engine.api", id="relative"),
        pytest.param(
            "worker.x", "def f():\n    import whisperd.spool.store", "worker.x -> spool.store", id="in a function"
        ),
        pytest.param("engine.x", "import whisperd.spool.durable", "engine.x -> spool.durable", id="granted to a part"),
        pytest.param(
            "daemon.x", "if TYPE_CHECKING:\n    import whisperd.engine", "daemon.x -> engine", id="for the type checker"
        ),
        pytest.param("lobby", "", "lobby has no row in the table of arrows", id="unknown room"),
    ],
)
def test_wrong_arrows_are_found(name, source, arrow):
    """An import is an arrow however it is written."""
    house = [Module(room, "") for room in ("engine", "engine.api", "spool", "spool.store", "spool.durable")]

    assert list(wrong_arrows([*house, Module(name, source)])) == [arrow]


@pytest.mark.parametrize(
    ("name", "source"),
    [
        pytest.param("worker.x", "import whisperd.spool.durable, whisperd.engine, os", id="in the row"),
        pytest.param("engine.x", "from . import api\nfrom .api import E", id="in the room"),
        pytest.param("engine.weights.x", "import whisperd.spool.durable", id="a row of its own"),
        pytest.param("cli", "def f():\n    import whisperd.engine, whisperd.spool.store", id="cli"),
        pytest.param("daemon.x", "from whisperd import __version__", id="version"),
    ],
)
def test_right_arrows_are_let_be(name, source):
    """What a row names, and the own room, are free."""
    house = [Module(room, "") for room in ("engine", "engine.api", "spool", "spool.store", "spool.durable")]

    assert list(wrong_arrows([*house, Module(name, source)])) == []


def test_a_circle_is_found():
    """Three modules that need each other in turn are one too many."""
    one = Module("spool.a", "from whisperd.spool import b")
    two = Module("spool.b", "def f():\n    from whisperd.spool.c import x")
    three = Module("spool.c", "if TYPE_CHECKING:\n    import whisperd.spool.a")

    assert set(cycle([one, two, three]).split(" -> ")) == {"spool.a", "spool.b", "spool.c"}
    assert cycle([one, two]) == ""


def test_modules_are_found_and_named_by_their_place(tmp_path):
    """A file is a module, an `__init__` its package, with relative imports resolved from there."""
    (tmp_path / "room").mkdir()
    (tmp_path / "__init__.py").touch()
    (tmp_path / "room" / "__init__.py").write_text("from .table import leg\nfrom ..errors import E", "utf-8")
    (tmp_path / "room" / "table.py").write_text("from . import chair", "utf-8")

    modules = modules_of(tmp_path)

    assert [module.name for module in modules] == ["", "room", "room.table"]
    assert graph_of(modules) == {"": set(), "room": {"room.table", "errors"}, "room.table": {"room"}}


def test_classes_of_one_name_are_found():
    """In two modules, or twice in one."""
    one, two = Module("spool.a", "class Row: ...\nclass Cell: ..."), Module("cli.b", "def f():\n    class Row: ...")

    assert shared_class_names([one, two]) == {"Row": ["spool.a", "cli.b"]}


@pytest.mark.parametrize(
    "source",
    [
        "class A:\n    def __init__(self):\n        " + "; ".join(f"self.x{n} = {n}" for n in range(15)),
        "class A:\n    def f(self):\n        self." + ", self.".join(f"x{n}" for n in range(15)) + " = range(15)",
        "class A:\n    x0: int\n" + "\n".join(f"    x{n}: int = {n}" for n in range(1, 15)),
    ],
    ids=["assigned", "unpacked", "fields"],
)
def test_a_large_class_is_found(source):
    """However its attributes come to be; those of other objects do not count."""
    other = "class B:\n    def f(self, other):\n        " + "; ".join(f"other.x{n} = {n}" for n in range(15))

    assert large_classes([Module("spool.a", f"{source}\n{other}")]) == {"spool.a.A": 15}


def test_a_retired_word_is_found_as_a_whole_word():
    """In the name of a module, a class or a function, but not inside of another word."""
    source = "class NotesOfAll: ...\ndef add_note(): ...\nclass Notebook: ...\ndef board_games(): ..."

    assert [found.rpartition(" ")[2] for found in retired_words([Module("intake.sight", source)])] == [
        "'sight'", "'notes'", "'note'", "'board'",
    ]  # fmt: skip
