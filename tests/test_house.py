"""The house: which files there are, and that imports run down only."""
import ast

import pytest
from conftest import ROOT

HOUSES = ("plumbing", "corpora", "tools", "bench", "papers")
FLOORS = (  # from the ground up; a file imports from floors below its own
    ("plumbing",),
    ("corpora",),
    ("model", "tokenizer"),
    ("qk_finetune", "data", "metrics"),
    ("generate", "adversarial", "align"),
    ("eval",),
    ("train",),
    ("tools", "bench", "papers"),
)
FILES = [name for floor in FLOORS for name in floor if name not in HOUSES]
LATE = {("train", "eval"): "its metrics are slow to import, and training needs none of them"}


def sources(name):
    if name in HOUSES:
        return sorted((ROOT / name).glob("*.py"))
    return [ROOT / f"{name}.py"]


def imported(path):
    """{room: line numbers} of what a file imports of this project."""
    found = {}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        for name in modules_of(node):
            assert name, f"{path.name}:{node.lineno}: a relative import"
            room = name.split(".")[0]
            if room in FILES or room in HOUSES:
                found.setdefault(room, []).append(node.lineno)
    return found


def test_ten_files_stand_at_the_top_level():
    assert sorted(path.stem for path in ROOT.glob("*.py")) == sorted(FILES)
    assert len(FILES) == 10


def test_every_house_has_an_empty_door():
    for house in HOUSES:
        assert (ROOT / house / "__init__.py").read_text(encoding="utf-8") == ""


@pytest.mark.parametrize("room", [name for floor in FLOORS for name in floor])
def test_imports_run_down_only(room):
    level = next(i for i, floor in enumerate(FLOORS) if room in floor)
    below = {name for floor in FLOORS[:level] for name in floor}
    allowed = below | ({room} if room in HOUSES else set())
    for path in sources(room):
        for name, lines in imported(path).items():
            assert name in allowed, f"{path.relative_to(ROOT)}:{lines[0]} imports {name}"


def test_no_file_of_a_house_imports_another_in_a_circle():
    for house in HOUSES:
        arrows = {}
        for path in sources(house):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            modules = set()
            for node in ast.walk(tree):
                if isinstance(node, ast.ImportFrom) and node.module.startswith(f"{house}."):
                    modules.add(node.module.split(".")[1])
                if isinstance(node, ast.ImportFrom) and node.module == house:
                    modules |= {alias.name for alias in node.names}
            arrows[path.stem] = modules
        while arrows:  # take away what imports nothing that is left
            ground = [name for name, modules in arrows.items() if not modules & set(arrows)]
            assert ground, f"{house}: a circle among {sorted(arrows)}"
            for name in ground:
                del arrows[name]


def modules_of(node):
    """The modules that a node of a syntax tree imports."""
    if isinstance(node, ast.ImportFrom):
        return [node.module]
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return []


def test_the_corpora_import_no_torch_and_of_plumbing_four_files_alone():
    for path in sources("corpora"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for module in modules_of(node):
                house = module.split(".")[0]
                if house in HOUSES:
                    _, _, name = module.partition(".")
                    known = ("files", "hub", "layout", "progress")
                    assert house == "corpora" or (house == "plumbing" and name in known), path
                assert house not in ("torch", "numpy"), path


def test_what_is_imported_late_is_said_here():
    """An import within a function hides an arrow. Only main() may import what running a file alone
    needs, as generate.py's does with the tokenizer."""
    for name in FILES:
        tree = ast.parse((ROOT / f"{name}.py").read_text(encoding="utf-8"))
        for function in ast.walk(tree):
            if not isinstance(function, ast.FunctionDef):
                continue
            for node in ast.walk(function):
                for module in modules_of(node):
                    if module.split(".")[0] not in FILES + list(HOUSES):
                        continue
                    alone = name == "generate" and function.name == "main"
                    known = alone or (name, module) in LATE
                    assert known, f"{name}.py:{node.lineno} imports {module} late"


def test_no_function_is_longer_than_a_reader_can_hold():
    """70 lines; the two loops that are the heart of their files have 120; tables of options any."""
    heart = {("train.py", "train"), ("generate.py", "beam_search")}
    paths = []
    for room in [*FILES, *HOUSES]:
        paths += sources(room)
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name not in ("parse_args", "make_parser"):
                lines = node.end_lineno - node.lineno + 1
                limit = 120 if (path.name, node.name) in heart else 70
                assert lines <= limit, f"{path.relative_to(ROOT)}: {node.name} has {lines} lines"
