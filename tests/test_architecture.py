"""The house: rooms in the order of the data's way, every import to a room above, and no circle."""

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "src" / "layerfreq"
# In the order of the data's way: a room imports only rooms that stand before it.
ROOMS = (
    "_version",
    "errors",
    "extras",
    "files",
    "progress",
    "isolation",
    "data",
    "plots",
    "trace",
    "network",
    "engines",
    "measure",
    "spectrum",
    "response",
    "probe",
    "layers",
    "runs",
    "trackers",
    "monitor",
    "related",
    "verdict",
    "report",
    "loading",
    "inspection",
    "relearn",
    "advice",
    "experiments",
    "integrations",
    "cli",
    "__main__",
)
# The front door looks up the house on purpose: `Run.report()` writes the page.
EACH_ITS_OWN = {"trackers", "integrations", "cli", "figures"}  # one file per tracker, callback, command and figure
DOORS = {("runs.run", "report")}
FILES, LINES = 10, 400  # of a room without its `__init__.py`; of a file


def modules():
    """Every module's name, without the package's, and its file."""
    found = {}
    for file in sorted(ROOT.rglob("*.py")):
        parts = file.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def imported(file, known):
    """The modules of the package that a file imports, anywhere in it: inside functions and for typing as well."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert not node.level, f"{file}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            package, _, rest = name.partition(".")
            if package == "layerfreq" and rest:
                yield rest if rest in known else rest.rpartition(".")[0]


def arrows():
    """Module -> the modules that it imports."""
    known = modules()
    return {name: sorted(set(imported(file, known)) - {"", name}) for name, file in known.items() if name}


def room(module):
    return module.partition(".")[0]


def test_every_module_is_in_a_room():
    assert {room(name) for name in modules() if name} <= set(ROOMS)


def test_no_arrow_goes_up_the_house():
    place = {name: i for i, name in enumerate(ROOMS)}
    table, against = defaultdict(set), []
    for name, targets in arrows().items():
        for target in targets:
            if room(target) != room(name):
                table[room(name)].add(room(target))
            if place[room(target)] > place[room(name)] and (name, room(target)) not in DOORS:
                against.append(f"{name} -> {target}")
    for name in ROOMS:
        print(f"{name:<13} <- {', '.join(sorted(table[name], key=place.__getitem__))}")
    assert not against, against


def test_no_circle_among_modules():
    graph = {name: [t for t in targets if (name, room(t)) not in DOORS] for name, targets in arrows().items()}
    done, path = set(), []

    def visit(name):
        if name in path:
            pytest.fail(" -> ".join([*path[path.index(name) :], name]))
        if name in done:
            return
        path.append(name)
        for target in graph.get(name, []):
            visit(target)
        done.add(path.pop())

    for name in graph:
        visit(name)


def test_imports_by_name_are_the_registers_of_experiments():
    """Modules that are found by a name at run time, which the graph cannot see."""
    dynamic = [name for name, file in modules().items() if 'import_module(f"layerfreq' in file.read_text()]
    assert dynamic == ["experiments"]


def test_rooms_and_files_stay_small():
    count, long = defaultdict(int), {}
    for name, file in modules().items():
        lines = len(file.read_text().splitlines())
        if lines > LINES:
            long[name] = lines
        if file.name != "__init__.py" and file.parent.name not in EACH_ITS_OWN:
            count[str(file.parent.relative_to(ROOT))] += 1
    assert not long, long
    full = {folder: n for folder, n in count.items() if n > FILES}
    assert not full, full


def test_the_architecture_page_names_every_file():
    """By its name in the paragraph on its room; of rooms that are one file each, the room."""
    page = (ROOT.parents[1] / "docs" / "architecture.md").read_text()
    files = page.partition("## Files\n")[2].partition("\n## ")[0]
    rooms = {
        names[0]: set(re.findall(r"`(\w+)`", text))
        for text in re.split(r"\n *- ", files)[1:]
        if (names := re.findall(r"`(.*?)/`", text))
    }
    missing = []
    for name, file in modules().items():
        *_, folder, stem = ("", *name.split("."))
        if file.name != "__init__.py" and folder and folder not in EACH_ITS_OWN and stem not in rooms.get(folder, ()):
            missing.append(name)
    assert not missing, missing
