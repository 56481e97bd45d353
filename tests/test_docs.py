"""The documents say what the program does: every command, exit code, setting and example; and what they name exists."""

from __future__ import annotations

import configparser
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer

import condensery
from search.settings import StudySettings
from search.study_file import load_settings
from search.study_template import TEMPLATES, study_file
from space import errors
from space.space_settings import KEYS
from workers.latency.agent import __main__ as agent
from workers.settings import Settings, TrainingSettings

ROOT = Path(__file__).parent.parent
COMMANDS = (ROOT / "docs" / "commands.md").read_text()
STUDY_FILE = (ROOT / "docs" / "study-file.md").read_text()
README = (ROOT / "README.md").read_text()
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
ABOUT_THE_CODE = [ROOT / "docs" / "architecture.md", *sorted((ROOT / "docs" / "decisions").glob("*.md"))]
PACKAGES = ("space", "workers", "search", "dashboards", "commands", "benchmarks")


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def fenced_blocks(text: str, *languages: str) -> list[str]:
    """Return the texts of the fenced blocks in these languages."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return [block for language, block in blocks if language in languages]


def inline_code(text: str) -> list[str]:
    """Return what stands between backticks, fenced blocks left out, each on one line."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose)]


def shell_lines(text: str) -> list[str]:
    """Return the lines that a document asks its reader to type: those of shell blocks, and what follows a prompt."""
    typed = [line for block in fenced_blocks(text, "sh") for line in block.replace("\\\n", " ").splitlines()]
    prompts = [line for block in fenced_blocks(text, "console") for line in block.splitlines() if line.startswith("$ ")]
    indented = re.findall(r"^    (\S.*)$", text, re.MULTILINE)
    return typed + [line.removeprefix("$ ") for line in prompts] + indented


def condensery_arguments(line: str) -> list[list[str]]:
    """Return the arguments of every call of `condensery` in a line of shell."""
    calls = []
    for part in re.split(r"&&|[;|&]", line):
        words = shlex.split(part, comments=True) if part.count("'") % 2 == 0 and part.count('"') % 2 == 0 else []
        while words and (re.match(r"\w+=", words[0]) or words[0] in ("sudo", "then", "do")):
            words = words[1:]
        if "with-password" in words:
            words = words[words.index("with-password") + 1 :]
        if words and words[0].rpartition("/")[2] == "condensery":
            calls.append(words[1:])
    return calls


def documented_calls(text: str) -> list[list[str]]:
    """Return the arguments of every call of `condensery` in a document, placeholders such as COMMAND left out."""
    lines = shell_lines(text) + [code for code in inline_code(text) if code.startswith("condensery ")]
    calls = [arguments for line in lines for arguments in condensery_arguments(line)]
    return [arguments for arguments in calls if arguments and not arguments[0].isupper()]


def commands_in(group: Any, prefix: str = "") -> dict[str, Any]:
    """Return every command by its full name, such as "devices add"."""
    commands: dict[str, Any] = {}
    for name, command in group.commands.items():
        inner = commands_in(command, f"{prefix}{name} ") if hasattr(command, "commands") else {prefix + name: command}
        commands |= inner
    return commands


APP: Any = typer.main.get_command(condensery.app)
COMMAND_LINE = commands_in(APP)


@pytest.mark.parametrize("name", COMMAND_LINE)
def test_every_command_has_help_and_a_row_with_all_of_its_options(name: str) -> None:
    command = COMMAND_LINE[name]
    (row,) = re.findall(rf"^\| `{name}[ `].*$", COMMANDS, re.MULTILINE)
    names = [name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)]
    options = {name for name in names if name.startswith("--")}
    assert set(re.findall(r"--[a-z][a-z-]*", row)) == options - {"--storage", "--json"}  # of nearly every command
    assert command.help


def test_every_row_of_the_commands_is_a_command() -> None:
    rows = re.findall(r"^\| `([a-z][a-z -]*[a-z])(?: [A-Z\[-][^`]*)?` \|", COMMANDS.split("## `pick`")[0], re.MULTILINE)
    assert sorted(rows) == sorted(COMMAND_LINE)


def parse(arguments: list[str]) -> None:
    """Parse a call without running it; typer's parser raises on an option that the command doesn't have.

    Raises:
        KeyError: there is no such command.
    """
    command = APP
    while arguments and not arguments[0].startswith("-") and hasattr(command, "commands"):
        command, arguments = command.commands[arguments[0]], arguments[1:]
    command.make_parser(typer.Context(command)).parse_args(list(arguments))


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_the_commands_and_options_in_a_document_exist(document: Path) -> None:
    for arguments in documented_calls(document.read_text()):
        parse(arguments)


@pytest.mark.parametrize("call", ["lunch study.toml", "devices sell pi5", "pick --max-latency 3", "status --reusme"])
def test_a_call_of_what_does_not_exist_is_found(call: str) -> None:
    with pytest.raises((KeyError, typer.BadParameter.__mro__[1])):
        parse(call.split())


def test_calls_are_found_where_documents_write_them() -> None:
    text = """
```sh
cd demo && ../.venv/bin/condensery dashboard study.toml --open   # a comment
TOKEN=1 condensery devices serve --host 0.0.0.0
python3 -m venv condensery
```
```console
$ condensery status
condensery is what it prints
```
`condensery plot
front` and `condensery COMMAND --help`
"""
    calls = [
        ["dashboard", "study.toml", "--open"],
        ["devices", "serve", "--host", "0.0.0.0"],
        ["status"],
        ["plot", "front"],
    ]
    assert documented_calls(text) == calls


def defines(source: str, name: str) -> bool:
    """Whether a module's source defines a name or, as a string, hands it on lazily."""
    return bool(re.search(rf"(?:def|class) {name}\b|^{name}\b|[\"' ]{name}[\"' ]", source, re.MULTILINE))


def exists(dotted: str) -> bool:
    """Whether `package.module` is there, or `package.module.Name` and the module holds that name."""
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        path = ROOT.joinpath(*parts[:length])
        for file in (path.with_suffix(".py"), path / "__init__.py"):
            if file.is_file():
                return length == len(parts) or defines(file.read_text(), parts[length])
    return False


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_the_modules_and_files_that_a_document_names_exist(document: Path) -> None:
    settings = {f"{part}.{name}" for part, names in settings_by_part().items() for name in names}
    if document in ABOUT_THE_CODE:
        settings = set()  # there `search.stopping` would be a module
    text = document.read_text()
    code = "\n".join([*inline_code(text), *re.findall(r"^```.*?^```", text, re.DOTALL | re.MULTILINE)])
    code += "\n".join(re.findall(r"^    .*$", text, re.MULTILINE))
    packages = "|".join(PACKAGES)
    for dotted in re.findall(rf"(?<![\w/.-])(?:{packages})(?:\.[A-Za-z_]\w*)+", code):
        if dotted not in settings and not dotted.endswith((".md", ".toml")):
            assert exists(dotted), dotted
    for path in re.findall(rf"(?<![\w/.-])(?:{packages}|docs|tests|deploy|examples)/[\w./-]*\w", code):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("package", ["workers", "search", "dashboards"])
def test_the_architecture_draws_every_room(package: str) -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    (drawing,) = re.findall(rf"^    {package}/\n((?:      .*\n)+)", text, re.MULTILINE)
    drawn = set(re.findall(r"^      (\w+)/", drawing, re.MULTILINE))
    assert drawn == {path.parent.name for path in (ROOT / package).glob("*/__init__.py")}


@pytest.mark.parametrize("document", ABOUT_THE_CODE, ids=name_of)
def test_the_classes_that_the_architecture_names_exist(document: Path) -> None:
    sources = "".join(path.read_text() for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    for code in inline_code(document.read_text()):
        for name in re.findall(r"\b(?:[A-Z][a-z]+){2,}\b", code):
            assert re.search(rf"\b{name}\b", sources), name


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_the_settings_that_a_document_shows_are_settings(document: Path) -> None:
    by_part = settings_by_part()
    for block in fenced_blocks(document.read_text(), "toml"):
        for part, values in tomllib.loads(block).items():
            if part not in by_part:
                continue
            assert set(values) <= set(by_part[part]), block


def test_the_table_of_exit_codes_is_the_tree_of_errors() -> None:
    table = {name: int(code) for code, name in re.findall(r"^\| (\d+) \| (\w+) \|", COMMANDS, re.MULTILINE)}
    tree = {
        name: error.exit_code
        for name, error in vars(errors).items()
        if isinstance(error, type) and issubclass(error, errors.CondenseryError) and error is not errors.CondenseryError
    }
    assert table == tree
    assert len(set(tree.values())) == len(tree)


def settings_by_part() -> dict[str, list[str]]:
    """Return the names of the settings in each part of a study file."""
    parts: dict[str, list[str]] = {}
    for part, field in StudySettings.model_fields.items():
        model = field.annotation
        names = KEYS if part == "space" else TrainingSettings.model_fields if part == "training" else ()
        if isinstance(model, type) and issubclass(model, Settings):
            names = model.model_fields
        parts[part] = list(names)
    return parts


def test_every_setting_is_documented() -> None:
    for part, names in settings_by_part().items():
        for name in names:
            documented = f"`{part}.{name}`" in STUDY_FILE or f"`{name}`" in STUDY_FILE
            of_the_data = part == "space" and name in ("num_classes", "input_shape")
            assert documented or of_the_data, f"{part}.{name}"


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
        assert not re.findall(r"@[A-Z]+@|@@|TODO|TBD", path.read_text()), path


def test_the_service_file_for_servers_is_one_that_systemd_reads() -> None:
    """systemd takes everything after a value on its line, comments too, as part of the value."""
    (block,) = re.findall(r"```ini\n(.*?)```", (ROOT / "docs" / "devices.md").read_text(), re.DOTALL)
    unit = configparser.ConfigParser(delimiters="=", comment_prefixes=None, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read_string(block)
    assert unit["Unit"]["After"] == "network-online.target"
    assert unit["Service"]["User"]
    assert unit["Install"]["WantedBy"] == "multi-user.target"
    assert not [line for line in block.splitlines() if "#" in line]
    words = unit["Service"]["ExecStart"].split()
    assert agent.parser().parse_args(words[2:]).hub.startswith("https://")
