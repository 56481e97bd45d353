"""Who may import whom, and what must not be loaded before it is needed.

space <- workers <- search <- dashboards <- commands <- condensery.py: each knows only what stands before it.
"""

from __future__ import annotations

import ast
import functools
import importlib
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import space

ROOT = Path(__file__).parents[1]
ORDER = ("space", "workers", "search", "dashboards", "commands", "condensery")
HEAVY = ("torch", "ray", "optuna", "dash")
FRONT_DOOR = ROOT / "condensery.py"


def sources(part: str) -> list[Path]:
    return [FRONT_DOOR] if part == "condensery" else sorted((ROOT / part).rglob("*.py"))


def is_our_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, module) of every absolute import at any depth, and of every string that is the name of a module of ours.

    The strings are those given to importlib and to `python -m`, and the tables of lazy exports.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            yield node.lineno, node.module
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            name = node.value
            if name.partition(".")[0] in ORDER and "." in name and is_our_module(name):
                yield node.lineno, name


def broken_directions(part: str, tree: ast.AST) -> list[str]:
    """Imports in a file of `part` that point at a later package, or at the front door."""
    allowed = set(ORDER[: ORDER.index(part) + 1]) - {"condensery"}
    return [
        f"line {line} imports {module}"
        for line, module in imported(tree)
        if module.partition(".")[0] in set(ORDER) - allowed
    ]


def relative_imports(tree: ast.AST) -> list[int]:
    """Lines of imports that begin with a dot."""
    return [node.lineno for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level]


@functools.cache  # every file is read and parsed once
def wrong_in(part: str) -> dict[str, tuple[list[str], list[int]]]:
    """By file of `part` the imports that point the wrong way, and those that begin with a dot."""
    found = {}
    for path in sources(part):
        tree = ast.parse(path.read_text())
        found[str(path.relative_to(ROOT))] = (broken_directions(part, tree), relative_imports(tree))
    return found


@pytest.mark.parametrize("part", ORDER[:-1])
def test_a_package_imports_only_what_stands_before_it(part):
    files = wrong_in(part)
    assert files
    assert {name: lines for name, (lines, _) in files.items() if lines} == {}


@pytest.mark.parametrize(
    ("part", "text", "found"),
    [
        ("space", "import workers.images.batches", 1),
        ("workers", "def late():\n    from search import store", 1),
        ("search", "if TYPE_CHECKING:\n    import dashboards", 1),
        ("dashboards", "import condensery", 1),
        ("condensery", "import condensery", 1),
        ("space", "import importlib\nimportlib.import_module('space.cost')", 0),
        ("dashboards", "from search.settings import a\nimport space, workers", 0),
    ],
)
def test_the_check_itself_finds_imports_at_any_depth(part, text, found):
    assert len(broken_directions(part, ast.parse(text))) == found


def test_the_check_itself_finds_modules_named_in_strings_and_imports_with_a_dot():
    named = ast.parse("import_module('workers.settings')")
    assert broken_directions("space", named) == ["line 1 imports workers.settings"]
    assert relative_imports(ast.parse("def late():\n    from . import names")) == [2]


def test_packages_import_their_own_modules_by_full_name():
    relative = {name: lines for part in ORDER[:-1] for name, (_, lines) in wrong_in(part).items() if lines}
    assert relative == {}


def loaded_by(code: str) -> set[str]:
    """The top-level modules that a fresh interpreter has loaded after `code`."""
    script = f"{code}\nimport sys\nprint(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "code",
    [
        "import space",
        "import space.config",
        "import space.cost",
        "import space.search_space",
        "from space import CondenseNetConfig, Cost, InvalidConfig, SearchSpace, cost_of\n"
        "import numpy\n"
        "s = SearchSpace.preset('cifar')\n"
        "s.neighbours(s.sample(numpy.random.default_rng(0)))",
    ],
    ids=["space", "config", "cost", "search_space", "sampling"],
)
def test_configs_costs_and_spaces_load_nothing_heavy(code):
    assert not loaded_by(code) & {*HEAVY, "fvcore"}


@pytest.mark.skipif(not FRONT_DOOR.exists(), reason="condensery.py is not there")
def test_the_front_door_loads_nothing_heavy():
    assert not loaded_by("import condensery") & set(HEAVY)


@pytest.mark.skipif(not FRONT_DOOR.exists(), reason="condensery.py is not there")
def test_the_front_doors_help_loads_nothing_heavy():
    done = subprocess.run(
        [sys.executable, "-X", "importtime", str(FRONT_DOOR), "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "usage" in done.stdout.lower()
    assert "typer" in loaded  # the listing was read
    assert not loaded & set(HEAVY)


def test_everything_space_hands_on_is_there_and_nothing_else_is_promised():
    names = space.__all__
    assert names == sorted(names)
    assert dir(space) == names
    designed = (
        "CondenseNetConfig InvalidConfig CondenseNet deploy DeployedCondenseNet cost_of Cost fvcore_cost SearchSpace"
    )
    assert set(names) == set(designed.split())


def test_what_space_hands_on_is_documented_and_its_own():
    check = f"""
import importlib, inspect
for name in {space.__all__}:
    exported = getattr(importlib.import_module("space"), name)
    assert exported is getattr(importlib.import_module("space"), name) and callable(exported), exported
    assert exported.__name__ == name and exported.__module__.startswith("space.")
    assert inspect.getdoc(exported)
"""
    assert "torch" in loaded_by(check)  # or those tests could not fail that say what loads no torch


def test_space_does_not_hand_on_what_it_has_not():
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        space.Nothing  # noqa: B018


def test_no_module_of_space_hides_an_export_of_the_same_name():
    for module in pkgutil.iter_modules(space.__path__):
        importlib.import_module(f"space.{module.name}")
        assert module.name not in space.__all__
    assert all(callable(getattr(space, name)) for name in space.__all__)


def test_what_the_reading_commands_and_check_need_waits_for_no_torch_and_no_optuna():
    modules = (
        "search.time_estimate, search.results.pareto, search.results.ranking, search.store.reader, "
        "dashboards.terminal.answers, dashboards.terminal.study_tables, dashboards.terminal.trial_panel, "
        "dashboards.terminal.trial_tables"
    )
    assert not loaded_by(f"import {modules}") & {"torch", "optuna", "ray", "dash", "plotly"}
