"""Building the folder of the ARM device in software: an aarch64 Python with the runtimes, and the instruction counter.

- The aarch64 Python comes as packages from this machine's own apt sources. apt resolves them in a separate state, and
  they are unpacked, not installed: that needs no root and no chroot, and changes nothing on the machine.
- The runtimes are aarch64 wheels, fetched by this Python's pip, of the versions installed here where there are such.
- A folder is built beside its final place, tried out, and moved there when it is complete.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from space.errors import EmulatorMissing
from workers.latency.agent.elf import why_foreign
from workers.latency.agent_file import agent_path
from workers.latency.emulated.arm_tools import output_of

COUNTER_SOURCE = Path(__file__).with_name("instruction_counter.c")
ROOT, COUNTER, STAMP = "root", "instruction_counter.so", "built.json"  # what a folder holds
CPU = "cortex-a76"
CROSS_COMPILER = "aarch64-linux-gnu-gcc"  # optional: for kernels that the agent compiles where it runs
LAYOUT = 1  # of the folder

_PACKAGES = ("python3", "libstdc++6")
_OLDEST_GLIBC = 17  # of the manylinux tags: 2.17
# What Linux shows of a Cortex-A76 (implementer, part and revision of a Raspberry Pi 5's); onnxruntime reads it.
_CPUINFO = """processor\t: {number}
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x4
CPU part\t: 0xd0b
CPU revision\t: 1

"""
_APT_SETTINGS = """APT::Architecture "arm64";
#clear APT::Architectures;
APT::Architectures {{ "arm64"; }};
APT::Install-Recommends "false";
APT::Sandbox::User "";
Dir::State "{scratch}/state";
Dir::State::status "{scratch}/status";
Dir::Cache "{scratch}/cache";
Dir::Log "{scratch}/log";
Acquire::Languages "none";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Pre-Invoke;
#clear DPkg::Post-Invoke;
"""
_TRY_OUT = """
import json, os, importlib, importlib.metadata, platform, sys
for name in sys.argv[1:]:
    importlib.import_module(name.replace("-", "_"))
for marker in (0x5EED01, 0x5EED02):
    try:
        os.getsid(marker)
    except OSError:
        pass
versions = {name: importlib.metadata.version(name) for name in sys.argv[1:]}
print(json.dumps({"python": platform.python_version(), "machine": platform.machine(), **versions}))
"""


@dataclass(frozen=True)
class Wanted:
    """What a folder is to hold: the runtimes, each with the version to install ("" for the newest)."""

    runtimes: Mapping[str, str]
    sources: Path | None = None  # an apt source list to use in place of this machine's

    def is_met_by(self, stamp: Mapping[str, Any]) -> bool:
        """Return whether a folder with this stamp has all these runtimes, in these versions."""
        made_for = stamp["wanted"]
        return all(name in made_for and made_for[name] == version for name, version in self.runtimes.items())


def wanted(runtimes: Sequence[str], sources: Path | None = None) -> Wanted:
    """Return what a folder is to hold: these runtimes, in the versions that are installed on this machine."""
    versions = {}
    for name in runtimes:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = ""
    return Wanted(versions, sources)


def read_stamp(folder: Path) -> dict[str, Any] | None:
    """Return what a complete folder says about itself; None when there is none, or one of another layout."""
    try:
        stamp = json.loads((folder / STAMP).read_bytes())
    except (OSError, ValueError):
        return None
    return stamp if isinstance(stamp, dict) and stamp.get("layout") == LAYOUT else None


def counter_hash() -> str:
    """Return the SHA-256 of the instruction counter's source."""
    return hashlib.sha256(COUNTER_SOURCE.read_bytes()).hexdigest()


def python_in(folder: Path) -> Path:
    """Return the aarch64 Python of a folder."""
    pythons = [path for path in (folder / ROOT / "usr/bin").glob("python3.*") if path.name[8:].isdigit()]
    if not pythons:
        raise EmulatorMissing(f"{folder} holds no Python; remove it and run: condensery devices virtual")
    return max(pythons, key=lambda path: int(path.name[8:]))


def has_kernel(folder: Path) -> bool:
    """Whether the project's own kernel is there for the emulated Python of a folder, or can be compiled for it."""
    if shutil.which(CROSS_COMPILER) is not None:
        return True
    return any(why_foreign(file, python_in(folder)) is None for file in (folder / "kernels").glob("*.so"))


def emulated_python(qemu: str, folder: Path, counts: Path | None) -> list[str]:
    """Return the command that runs the folder's Python, counting into `counts` if that is given."""
    root = folder / ROOT
    variables = {
        "PYTHONPATH": str(root / "opt/site"),
        "PYTHONSAFEPATH": "1",  # no imports from a script's own folder
        "PYTHONNOUSERSITE": "1",
        "PYTHONHASHSEED": "0",
        "CONDENSERY_KERNELS": str(folder / "kernels"),
    }
    # A program of this machine, started from inside; its own `gcc` would compile for this machine.
    variables["CC"] = shutil.which(CROSS_COMPILER) or CROSS_COMPILER
    command = [qemu, "-cpu", CPU, "-seed", "1", "-L", str(root)]
    if counts is not None:
        command += ["-plugin", f"{_no_comma(folder / COUNTER)},out={_no_comma(counts)}"]
    for name, value in variables.items():
        command += ["-E", f"{name}={_no_comma(value)}"]
    # Meant for this machine's Python; bytecode must be written, for emulated compiling takes seconds.
    for name in ("PYTHONHOME", "PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX", "LD_LIBRARY_PATH", "LD_PRELOAD"):
        command += ["-U", name]
    return [*command, str(python_in(folder))]


def _no_comma(text: str | Path) -> str:
    if "," in str(text):
        raise EmulatorMissing(f"the emulator takes no path with a comma, but got {text}; choose another folder.")
    return str(text)


def make_folder(folder: Path, order: Wanted, qemu: str, progress: Callable[[str], None]) -> None:
    """Fill an empty folder and write its stamp last.

    Raises:
        EmulatorMissing: no network, no arm64 packages or wheels, or what was made doesn't run; in one line.
    """
    scratch, root = folder / "scratch", folder / ROOT
    progress("fetching an arm64 Python")
    packages = _fetch_packages(scratch, order.sources)
    for package in packages:
        output_of(["dpkg-deb", "-x", str(package), str(root)], f"{package.name} can't be unpacked")
    _complete(root)
    progress("fetching the arm64 runtimes")
    _fetch_wheels(folder, order.runtimes, _glibc_minor(packages))
    shutil.rmtree(scratch, ignore_errors=True)
    progress("building the instruction counter")
    compile_counter(folder / COUNTER)
    progress("trying it out")
    versions = _try_out(qemu, folder, order.runtimes)
    stamp = {"layout": LAYOUT, "wanted": dict(order.runtimes), "counter": counter_hash(), "versions": versions}
    write_stamp(folder, stamp)


def write_stamp(folder: Path, stamp: Mapping[str, Any]) -> None:
    """Write the stamp that says what a complete folder holds."""
    new = folder / f"{STAMP}.new"
    new.write_text(json.dumps(stamp, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    new.replace(folder / STAMP)


def _fetch_packages(scratch: Path, sources: Path | None) -> list[Path]:
    """Let apt find and download the packages and their dependencies, as if nothing were installed."""
    for name in ("state/lists/partial", "cache/archives/partial", "log"):
        (scratch / name).mkdir(parents=True)
    (scratch / "status").touch()
    settings = _APT_SETTINGS.format(scratch=scratch)
    if sources is not None:
        settings += f'Dir::Etc::sourcelist "{sources.absolute()}";\nDir::Etc::sourceparts "/dev/null";\n'
    (scratch / "apt.conf").write_text(settings, encoding="utf-8")
    apt = ["apt-get", "-q", "-c", str(scratch / "apt.conf")]
    # One source without arm64, or out of reach, must not stop the others: what counts is what apt finds afterwards.
    update = subprocess.run([*apt, "update"], capture_output=True, text=True, errors="replace")
    complaints = [line for line in update.stderr.splitlines() if re.match("[WE]: ", line)]
    trouble = "apt found no arm64 Python in its sources"
    if complaints:
        trouble += f" ({complaints[0][:200]})"
    if "ubuntu" in _os_release():
        trouble += " (Ubuntu keeps arm64 at ports.ubuntu.com: pass an apt list of it as --sources)"
    output_of([*apt, "-y", "--download-only", "install", *_PACKAGES], trouble)
    return sorted((scratch / "cache/archives").glob("*.deb"))


def _os_release() -> str:
    try:
        return Path("/etc/os-release").read_text(encoding="utf-8").lower()
    except OSError:
        return ""


def _complete(root: Path) -> None:
    """Add what unpacked packages lack: the merged /lib, and a /proc/cpuinfo that emulated programs see."""
    for name in ("bin", "lib"):
        if not (root / name).exists():
            (root / name).symlink_to(f"usr/{name}")
    for name in ("doc", "man", "locale"):
        shutil.rmtree(root / "usr/share" / name, ignore_errors=True)
    (root / "proc").mkdir(exist_ok=True)
    text = "".join(_CPUINFO.format(number=number) for number in range(os.cpu_count() or 1))
    (root / "proc/cpuinfo").write_text(text, encoding="ascii")


def _glibc_minor(packages: Sequence[Path]) -> int:
    versions = (re.match(r"libc6_2\.(\d+)", package.name) for package in packages)
    return next((int(version[1]) for version in versions if version), _OLDEST_GLIBC)


def _fetch_wheels(folder: Path, runtimes: Mapping[str, str], glibc_minor: int) -> None:
    """Install the wheels of the runtimes; a version without an aarch64 wheel is replaced by the newest with one."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"]
    pip += ["--target", str(folder / ROOT / "opt/site"), "--no-compile", "--only-binary=:all:"]
    pip += ["--python-version", python_in(folder).name.removeprefix("python")]
    for minor in range(glibc_minor, _OLDEST_GLIBC - 1, -1):
        pip += ["--platform", f"manylinux_2_{minor}_aarch64"]
    pip += ["--platform", "manylinux2014_aarch64"]
    output_of([*pip, "numpy"], "pip can't fetch numpy for aarch64")
    for name, version in runtimes.items():
        # These two ask for packages that only their converters and model zoos use.
        command = [*pip, "--upgrade", *(["--no-deps"] if name in ("ncnn", "ai-edge-litert") else [])]
        try:
            output_of([*command, f"{name}=={version}" if version else name], f"pip can't fetch {name} for aarch64")
        except EmulatorMissing:
            if not version:
                raise
            output_of([*command, name], f"pip can't fetch {name} for aarch64")


def compile_counter(target: Path) -> None:
    """Compile the instruction counter to `target`, replacing what is there."""
    new = target.with_name(f"{target.name}.new")
    command = ["gcc", "-O2", "-shared", "-fPIC", "-fvisibility=hidden", "-o", str(new), str(COUNTER_SOURCE)]
    output_of(command, "the instruction counter can't be compiled")
    new.replace(target)


def _try_out(qemu: str, folder: Path, runtimes: Mapping[str, str]) -> dict[str, str]:
    """Start the agent, import the runtimes and count a run, all emulated; return the versions of what was imported."""
    counts = folder / "counts"
    command = emulated_python(qemu, folder, counts)
    output_of([*command, str(agent_path()), "--help"], "the emulated agent doesn't run")
    printed = output_of([*command, "-c", _TRY_OUT, "numpy", *runtimes], "the emulated runtimes don't run")
    if not counts.exists() or not json.loads(counts.read_text(encoding="ascii"))["all"] > 0:
        raise EmulatorMissing(f"{qemu} must count the instructions it runs, but didn't; try another version of it.")
    counts.unlink()
    versions: dict[str, str] = json.loads(printed)
    return versions
