"""README.md: what it says about the files is true, and the programs know its commands."""
import ast
import re
import shlex

from conftest import ROOT, check_command

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_first_screen_has_the_two_commands_in_its_first_25_lines():
    first = README.splitlines()[:25]
    assert sum("&& .venv" in line for line in first) == 2


def test_the_reading_order_and_the_table_have_every_file_and_house():
    files = sorted(path.name for path in ROOT.glob("*.py"))
    door = README[README.index("**To read it.**"):README.index("reads from top to bottom")]
    order = re.findall(r"`(\w+\.py)`", door)
    assert order[0] == "model.py" and sorted(order) == files
    table = README[README.index("## The ten files"):]
    rows = re.findall(r"^\| `([\w.]+)/?` \|", table[:table.index("Imports run down")], re.M)
    houses = [path.parent.name for path in ROOT.glob("*/__init__.py")]
    assert sorted(rows) == sorted(files + houses)


def test_every_file_and_module_that_is_named_exists():
    for module in set(re.findall(r"-m ((?:tools|bench|papers|corpora)\.\w+)", README)):
        assert (ROOT / f"{module.replace('.', '/')}.py").is_file(), module
    for path in re.findall(r"\]\(([\w/.]+)\)", README):
        assert (ROOT / path).is_file(), path


def test_every_readme_command_is_one_that_its_program_reads(monkeypatch):
    """Those of the blocks and of the tables' first cells, word by word."""
    blocks = "\n".join(re.findall(r"^```\n(.*?)^```$", README, re.M | re.S))
    lines = blocks.splitlines() + re.findall(r"^\| `([^`]*)`", README, re.M)
    commands = []
    for line in lines:
        match = re.search(r"\.venv(?:-dev)?/bin/python (?!-m pytest|-m venv)(.+)", line)
        if match:
            commands.append(shlex.split(match.group(1)))
    assert len(commands) > 20
    for words in commands:
        check_command(words, monkeypatch)


def test_every_option_that_the_readme_names_beside_a_program_exists(run):
    known = {script: run(script, "--help").stdout for script in ("train.py", "eval.py")}
    for script, rest in re.findall(r"(train|eval)\.py ([^`\n|]*)", README):
        for option in re.findall(r"--[a-z][a-z-]*", rest):
            assert re.search(rf"{option}\b(?!-)", known[f"{script}.py"]), f"{script}.py {option}"


def test_every_name_that_an_equation_points_to_exists():
    rows = re.findall(r"`([\w/]+)\.py`: ((?:`\w+`(?:, )?)+)", README)
    assert len(rows) >= 10
    for file, names in rows:
        tree = ast.parse((ROOT / f"{file}.py").read_text(encoding="utf-8"))
        defined = {getattr(node, "name", None) for node in tree.body}
        defined |= {target.id for node in tree.body if isinstance(node, ast.Assign)
                    for target in node.targets if isinstance(target, ast.Name)}
        for name in re.findall(r"`(\w+)`", names):
            assert name in defined, f"{file}.py has no {name}"
