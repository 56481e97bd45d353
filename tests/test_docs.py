"""The documents say what the program does: every command, every exit code, every setting, every example."""

from __future__ import annotations

import argparse
import configparser
import re
from pathlib import Path

import pytest

import condensery
from commands import devices
from search.settings import StudySettings, load_settings
from search.study_template import TEMPLATES, study_file
from space import errors
from space.search_space import KEYS
from workers.latency import agent
from workers.settings import Settings, TrainingSettings

ROOT = Path(__file__).parent.parent
COMMANDS = (ROOT / "docs" / "commands.md").read_text()
STUDY_FILE = (ROOT / "docs" / "study-file.md").read_text()
README = (ROOT / "README.md").read_text()


def test_every_command_is_documented_and_has_help() -> None:
    for command in condensery.app.registered_commands:
        name = command.name or command.callback.__name__  # type: ignore[union-attr]
        assert f"`{name}" in COMMANDS, name
        assert command.callback is not None
        assert command.callback.__doc__
    for command in devices.app.registered_commands:
        name = command.name or command.callback.__name__  # type: ignore[union-attr]
        assert f"`devices {name}" in COMMANDS, name
        assert command.callback is not None
        assert command.callback.__doc__


def test_the_table_of_exit_codes_is_the_tree_of_errors() -> None:
    table = {name: int(code) for code, name in re.findall(r"^\| (\d+) \| (\w+) \|", COMMANDS, re.MULTILINE)}
    tree = {
        name: found.exit_code
        for name, found in vars(errors).items()
        if isinstance(found, type) and issubclass(found, errors.CondenseryError) and found is not errors.CondenseryError
    }
    assert table == tree
    assert len(set(tree.values())) == len(tree)


def test_every_setting_is_documented() -> None:
    for part, field in StudySettings.model_fields.items():
        model = field.annotation
        names = KEYS if part == "space" else TrainingSettings.model_fields if part == "training" else ()
        if isinstance(model, type) and issubclass(model, Settings):
            names = model.model_fields
        for name in names:
            known = f"`{part}.{name}`" in STUDY_FILE or f"`{name}`" in STUDY_FILE
            assert known or (part == "space" and name in ("num_classes", "input_shape")), f"{part}.{name}"


@pytest.mark.parametrize("preset", TEMPLATES)
def test_the_examples_are_what_init_writes_and_are_valid(preset: str) -> None:
    path = ROOT / "examples" / f"{preset}.toml"
    assert path.read_text() == study_file(preset, preset)
    assert load_settings(path).search_space().size


def test_the_readme_shows_both_commands_and_its_links_lead_somewhere() -> None:
    assert "make demo" in README
    assert "make test" in README
    for document in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", document.read_text()):
            assert (document.parent / target).exists(), (document.name, target)


def test_the_code_in_the_readme_runs() -> None:
    (block,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    (line,) = [line for line in block.splitlines() if "# 62381888" in line]
    scope: dict[str, object] = {}
    exec(block.replace("print(", "macs = ("), scope)
    assert scope["macs"] == 62_381_888, line


def test_no_document_holds_a_placeholder() -> None:
    for path in (ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")):
        assert not re.findall(r"@[A-Z]+@|TODO|TBD", path.read_text()), path


def test_the_service_file_for_servers_is_one_that_systemd_reads() -> None:
    """systemd takes what follows a value on its line as part of the value."""
    (block,) = re.findall(r"```ini\n(.*?)```", (ROOT / "docs" / "devices.md").read_text(), re.DOTALL)
    unit = configparser.ConfigParser(delimiters="=", comment_prefixes=None, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read_string(block)
    assert unit["Unit"]["After"] == "network-online.target"
    assert unit["Service"]["User"]
    assert unit["Install"]["WantedBy"] == "multi-user.target"
    assert not [line for line in block.splitlines() if "#" in line]
    words = unit["Service"]["ExecStart"].split()
    parser = argparse.ArgumentParser(exit_on_error=False)
    agent._add_run(parser.add_subparsers())
    assert parser.parse_args(words[2:]).hub.startswith("https://")
