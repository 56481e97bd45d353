"""The rooms of the house: which folder of a package may import which; and no modules import each other in a circle.

`docs/architecture.md` draws the same table. A room is a folder of a package, or a module beside the folders.
"""

from __future__ import annotations

import ast
import functools
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("space", "workers", "search", "dashboards", "commands")
MOST_FILES = 15  # in a room; a person should be able to take in a folder at a glance

# Who may import whom, room by room. What is not named here must not be imported.
MAY_IMPORT: Mapping[str, Mapping[str, str]] = {
    "workers": {
        "bundled": "",  # a device has it without the rest
        "preprocessing": "",
        "images": "bundled files preprocessing settings wording",
        "quantization": "images settings",
        "latency": "file_names files processes settings",
        "export": "bundled file_names files latency preprocessing quantization",
        "compiled": "files latency",
        "judging": "export images metrics quantization settings",
        "training": "compiled export file_names files images judging metrics processes settings wording",
        "baselines": "export file_names images latency settings training",
        "runners": "file_names files images latency processes training",
    },
    "search": {
        "store": "",
        "budget": "store",
        "settings": "budget store",
        "study_file": "replay settings",  # a file that replays a table leaves to it what the table decides
        "study": "settings store study_file",
        "devices": "settings store",
        "engines": "settings",  # knows jobs and events, neither the store nor who decides
        "pricing": "devices settings store",
        "results": "budget pricing settings store study study_file",  # knows no engine, no sampler and no loop
        "samplers": "budget results settings store study",
        "warm_start": "samplers settings store",
        "loop": "budget engines pricing results samplers settings store study warm_start",
        "replay": "engines pricing settings store",  # beside the study file, which it completes as plain values
        "enqueueing": "budget results settings start_networks store study_file",
        "data_fit": "settings",
        "event_files": "loop store",
        "machine_fit": "data_fit devices pricing reachability settings",
        "start_networks": "results settings store",
        "time_estimate": "budget data_fit event_files machine_fit pricing reachability replay samplers settings "
        "start_networks",
        "study_folders": "settings store",
        "reachability": "pricing settings",
        "launch": "data_fit engines event_files loop machine_fit pricing reachability replay results settings "
        "start_networks store study study_file study_folders warm_start",
        "crossvalidation": "settings store study_folders",
        "doctor": "devices loop samplers store study study_folders",
        "travel": "doctor event_files loop settings store study study_file study_folders",
    },
    "dashboards": {
        "data": "formats",
        "budget": "data formats",
        "studies": "budget data formats",  # several studies, as plain data
        "panels": "budget data formats studies",  # know neither page nor report nor terminal
        "image_files": "panels",
        "terminal": "budget data formats studies",
        "page": "budget data formats panels studies",
        "report": "budget data formats panels studies",
    },
}
# Samplers see rows and words of the store, and no connection: a sampler that asks the database waits for it.
SAMPLERS_SEE = {"search.store.rows", "search.store.vocabulary"}


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def modules_imported(text: str) -> Iterator[str]:
    """Yield every module of ours that a file imports by a full name, at any depth, also for type checking only."""
    for node in ast.walk(ast.parse(text)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            children = (f"{node.module}.{alias.name}" for alias in node.names)
            names = [child if is_module(child) else node.module for child in children]
        yield from (name for name in names if name.partition(".")[0] in PACKAGES and is_module(name))


@functools.cache  # reading every file takes longest
def imports_by_module() -> Mapping[str, set[str]]:
    """Return for each module of the packages the modules of ours that it imports."""
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            found[name] = set(modules_imported(path.read_text()))
    return found


def room_of(module: str) -> str:
    """Return the name of a module's room inside its package; "" for the package's own face."""
    return module.split(".")[1] if "." in module else ""


def broken_walls(package: str, imports: Mapping[str, set[str]]) -> list[str]:
    """Return the imports inside a package that its table doesn't allow."""
    rooms = MAY_IMPORT[package]
    allowed = {room: {room, *names.split()} for room, names in rooms.items()}
    return [
        f"{module} imports {other}"
        for module, others in imports.items()
        for other in sorted(others)
        if module.partition(".")[0] == other.partition(".")[0] == package
        and room_of(module) not in ("", room_of(other))
        and room_of(other) not in allowed.get(room_of(module), set())
    ]


def circles(imports: Mapping[str, set[str]]) -> list[list[str]]:
    """Return the groups of modules that import each other, by taking away whatever imports nothing that remains."""
    left = {module: {other for other in others if other in imports} for module, others in imports.items()}
    while True:
        free = {module for module, others in left.items() if not others & left.keys() - {module}}
        if not free:
            return [sorted(left)] if left else []
        left = {module: others for module, others in left.items() if module not in free}


@pytest.mark.parametrize("package", sorted(MAY_IMPORT))
def test_a_room_imports_only_what_its_table_allows(package: str) -> None:
    assert broken_walls(package, imports_by_module()) == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circles(imports_by_module()) == []


def test_samplers_see_rows_and_words_of_the_store_and_nothing_else() -> None:
    seen = {
        other
        for module, others in imports_by_module().items()
        if module.startswith("search.samplers")
        for other in others
        if other.startswith("search.store")
    }
    assert seen <= SAMPLERS_SEE


def test_the_checks_find_a_broken_wall_and_a_circle() -> None:
    assert broken_walls("search", {"search.store.rows": {"search.loop.state"}}) == [
        "search.store.rows imports search.loop.state"
    ]
    assert broken_walls("dashboards", {"dashboards.panels.front": {"dashboards.page.table"}})
    assert broken_walls("search", {"search.loop.state": {"search.store.rows", "search.loop.record"}}) == []
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) != []
    assert circles({"a": {"b"}, "b": {"c"}, "c": set()}) == []


def test_every_room_says_in_its_face_what_lives_in_it_and_can_be_taken_in_at_a_glance() -> None:
    folders = [
        folder
        for package in PACKAGES
        for folder in [ROOT / package, *(path for path in (ROOT / package).rglob("*") if path.is_dir())]
        if any(folder.glob("*.py")) and folder.name != "versions"
    ]
    assert len(folders) > 20
    for folder in folders:
        face = folder / "__init__.py"
        assert face.is_file(), f"{folder} has no __init__.py"
        assert ast.get_docstring(ast.parse(face.read_text())), f"{face} doesn't say what lives here"
        files = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
        assert len(files) <= MOST_FILES, f"{folder} has {len(files)} files"


def test_no_two_files_of_tests_have_the_same_name() -> None:
    names = Counter(path.name for path in (ROOT / "tests").rglob("test_*.py"))  # pytest imports them by these
    assert [name for name, count in names.items() if count > 1] == []
