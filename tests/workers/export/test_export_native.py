"""The project's own kernel computes the deployed network, and nothing else than a whole valid model is run."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from torch import nn

from space.config import CondenseNetConfig
from space.deployed import DeployedCondenseNet, DeployedLayer
from space.errors import ExportMismatch, InvalidConfig
from tests.workers.export.test_export import BASE, trained_like, varied
from workers.bundled import infer
from workers.export.common import difference
from workers.export.native import KERNEL_FILE, pack, save_native, to_native
from workers.latency.agent.runtimes import Native, kernels
from workers.latency.agent.runtimes.kernels import compiler
from workers.latency.agent.runtimes.native import FP32
from workers.latency.agent.timing import measure_models

pytestmark = pytest.mark.skipif(compiler() is None, reason="needs a C compiler")


def off_by(network: DeployedCondenseNet) -> float:
    return difference(network, Native().open(to_native(network), threads=1), images=2)


@st.composite
def configs(draw: st.DrawFn) -> CondenseNetConfig:
    stages = draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))
    sides = st.one_of(st.integers(4, 37), st.sampled_from([96, 97, 110]))
    try:
        return CondenseNetConfig(
            stages=tuple(stages),
            growth=tuple(draw(st.sampled_from([1, 2, 3, 4, 6, 8, 12, 16, 20, 32])) for _ in stages),
            groups=draw(st.sampled_from([1, 2, 3, 4, 8])),
            condense_factor=draw(st.sampled_from([1, 2, 4, 8])),
            bottleneck=draw(st.integers(1, 4)),
            groups_3x3=draw(st.sampled_from([None, 1, 2, 4])),
            num_classes=draw(st.integers(1, 12)),
            input_shape=(draw(st.sampled_from([1, 3])), draw(sides), draw(sides)),
            classifier_keep=draw(st.sampled_from([1.0, 0.5, 0.29])),
        )
    except InvalidConfig:
        assume(False)
        raise


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
@given(config=configs(), seed=st.integers(0, 1000))
@example(config=varied(groups=2, condense_factor=8), seed=0)
@example(config=varied(groups=8, condense_factor=2), seed=0)
@example(config=varied(groups=1, condense_factor=1), seed=0)
@example(config=varied(groups_3x3=1), seed=0)
@example(config=varied(input_shape=(3, 97, 101)), seed=0)
@example(config=varied(input_shape=(3, 96, 96), growth=(5, 5), groups=1, condense_factor=1), seed=0)  # 10 stem channels
@example(config=varied(input_shape=(3, 32, 32), growth=(16, 32)), seed=0)
@example(config=varied(input_shape=(1, 4, 4), growth=(4, 4), bottleneck=1), seed=0)
def test_every_export_equals_the_network(config: CondenseNetConfig, seed: int):
    assert off_by(trained_like(config, seed)) <= 1e-5


@pytest.mark.parametrize("scale", [0.0, 1e-30, -1e-30, 1e-9, -1e-9, 1e4])
def test_norms_of_every_scale_fold(scale: float):
    network = trained_like(BASE)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight[::2] = scale
    assert off_by(network) <= 1e-5


def test_columns_of_negative_scale_come_last_in_their_group():
    network = trained_like(BASE)
    layer = network.layers[0]
    assert isinstance(layer, DeployedLayer)
    start = 46 + 16 * 27  # behind the header and the stem's weights
    index = np.concatenate([part.view("<i4") for part in pack(network)])[start:]
    scale = layer.conv_1x1.norm.weight.reshape(4, 4)
    from_below = (scale >= 0).sum(1).tolist()
    assert index[16:20].tolist() == from_below
    for group, columns in enumerate(layer.conv_1x1.index.reshape(4, 4)):
        picked = index[4 * group : 4 * group + 4].tolist()
        assert sorted(picked) == columns.tolist()
        assert picked[: from_below[group]] == columns[scale[group] >= 0].tolist()


def test_the_file_holds_facts_weights_and_the_kernel(tmp_path: Path):
    files = files_of(to_native(trained_like(BASE)))
    assert list(files) == ["model.json", "weights.bin", "condensenet.c"]
    assert files["condensenet.c"] == KERNEL_FILE.read_bytes()
    assert CondenseNetConfig.from_dict(json.loads(files["model.json"])["config"]) == BASE


def test_a_network_too_wide_for_the_kernel_is_refused_in_one_line():
    with pytest.raises(ExportMismatch, match=r"at most 4096 channels.*export it to ONNX"):
        to_native(DeployedCondenseNet.random(varied(growth=(1028, 4), stages=(1, 1))))


# ---- what the agent runs -----------------------------------------------------------------------------------


def test_the_agent_knows_the_kernel_that_models_carry():
    assert hashlib.sha256(KERNEL_FILE.read_bytes()).hexdigest() == FP32.sha256


def test_a_kernel_of_another_hash_is_never_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CONDENSERY_KERNELS", str(tmp_path / "none"))
    model = changed(to_native(trained_like(BASE)), "condensenet.c", lambda code: code + b"\n")
    with pytest.raises(ValueError, match="must be the one this agent knows"):
        Native().open(model, threads=1)
    assert not (tmp_path / "none").exists()


def test_a_kernel_is_compiled_once_and_leaves_nothing_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CONDENSERY_KERNELS", str(tmp_path))
    model = to_native(trained_like(BASE))
    Native().open(model, threads=1)
    stamp, library = sorted(tmp_path.iterdir())
    assert (stamp.suffix, library.suffix) == (".json", ".so")
    monkeypatch.setenv("PATH", "")  # no compiler from here on
    monkeypatch.delenv("CC", raising=False)
    assert FP32.library() == library
    assert Native().open(model, threads=1)(np.zeros((3, 16, 16), np.float32)).shape == (10,)


def test_without_compiler_or_kernel_the_runtime_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CONDENSERY_KERNELS", str(tmp_path))
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(ImportError, match="apt install gcc"):
        Native()


def test_a_missing_cross_compiler_is_named_with_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CONDENSERY_KERNELS", str(tmp_path))
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("CC", "aarch64-linux-gnu-gcc")
    with pytest.raises(ImportError, match=r"CC names aarch64-linux-gnu-gcc.*apt install gcc-aarch64-linux-gnu$"):
        Native()
    with pytest.raises(ValueError, match=r"no such file\), nor compiled; CC names aarch64-linux-gnu-gcc"):
        FP32.compiled(KERNEL_FILE.read_bytes())


def test_a_compiler_that_fails_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    compiler = tmp_path / "cc"
    compiler.write_text("#!/bin/sh\necho 'no such flag' >&2\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", str(compiler))
    monkeypatch.setenv("CONDENSERY_KERNELS", str(tmp_path / "kernels"))
    with pytest.raises(ValueError, match="can't be compiled: no such flag"):
        Native().open(to_native(trained_like(BASE)), threads=1)
    assert list((tmp_path / "kernels").iterdir()) == []


IMAGE = np.zeros((3, 16, 16), np.float32)
CROSS = "aarch64-linux-gnu-gcc" if platform.machine() == "x86_64" else "x86_64-linux-gnu-gcc"


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The compiled kernel, where no compiler has been yet; compilers don't optimise, because that takes seconds."""
    monkeypatch.setattr(kernels, "FLAGS", ("-O0", *kernels.FLAGS[1:]))
    monkeypatch.setenv("CONDENSERY_KERNELS", str(tmp_path / "kernels"))
    monkeypatch.delenv("CC", raising=False)
    (tmp_path / "kernels").mkdir()
    return FP32.library()


def foreign(file: Path) -> bytes:
    """Write an object like this Python for another machine, as a foreign compiler would have made it."""
    head = bytearray(Path(sys.executable).read_bytes()[:64])
    head[18:20] = b"\x16\x00"  # IBM Z
    file.write_bytes(head)
    return bytes(head)


def runs() -> bool:
    return Native().open(to_native(trained_like(BASE)), threads=1)(IMAGE).shape == (10,)


@pytest.mark.skipif(shutil.which(CROSS) is None, reason=f"needs {CROSS}")
def test_a_compiler_for_another_machine_is_refused_and_its_object_never_kept(kept: Path, monkeypatch):
    monkeypatch.setattr(kernels, "processor_flags", lambda *given: [])  # whose flags such a compiler refuses by itself
    monkeypatch.setenv("CC", CROSS)
    with pytest.raises(ValueError, match=rf"{CROSS} compiles for another machine \(it is for .* name one .* in CC"):
        runs()
    assert list(kept.parent.iterdir()) == []
    monkeypatch.delenv("CC")  # the right compiler mends it
    assert runs()


def test_an_object_for_another_machine_is_compiled_again_and_without_a_compiler_is_none(kept: Path, monkeypatch):
    before = foreign(kept)
    with monkeypatch.context() as nowhere:
        nowhere.setenv("PATH", "")
        assert Native.installed() is None
    assert runs()
    assert kept.read_bytes() != before


@pytest.mark.parametrize("damage", ["cut off", "changed", "no stamp", "a stamp of no sense", "of an older source"])
def test_an_object_that_is_not_what_was_written_is_compiled_again(kept: Path, damage: str):
    assert runs()
    sound, stamp = kept.read_bytes(), kept.with_suffix(".json")
    noted = json.loads(stamp.read_text())
    kept.unlink()  # this process has it loaded
    kept.write_bytes(sound)
    match damage:
        case "cut off":
            kept.write_bytes(sound[:2000])
        case "changed":
            kept.write_bytes(sound + b"\0")
        case "no stamp":
            stamp.unlink()
        case "a stamp of no sense":
            stamp.write_text("[1]")
        case _:
            stamp.write_text(json.dumps({**noted, "source": "0" * 64}))
    changed_at = kept.stat().st_mtime_ns
    assert runs()
    assert json.loads(stamp.read_text()) == noted
    assert (kept.read_bytes(), kept.stat().st_mtime_ns > changed_at) == (sound, True)


def test_an_object_of_another_compiler_is_compiled_again(kept: Path, tmp_path: Path, monkeypatch):
    assert runs()
    newer = tmp_path / "newer-cc"
    newer.write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo newer && exit\nexec {compiler()} "$@"\n')
    newer.chmod(0o755)
    before = json.loads(kept.with_suffix(".json").read_text())
    monkeypatch.setenv("CC", str(newer))
    assert runs()
    after = json.loads(kept.with_suffix(".json").read_text())
    assert after["source"] == before["source"]
    assert after["compiler"] != before["compiler"]
    monkeypatch.setenv("CC", "no-such-compiler")  # what is there goes on working where there is none
    assert runs()


def test_an_object_that_was_put_there_by_hand_is_used_where_there_is_no_compiler(kept: Path, monkeypatch):
    assert runs()
    kept.with_suffix(".json").unlink()
    monkeypatch.setenv("PATH", "")
    assert runs()


@pytest.mark.parametrize("threads", [0, 65])
def test_a_number_of_threads_that_no_kernel_takes_is_refused(threads: int):
    with pytest.raises(ValueError, match="1 to 64 threads"):
        Native().open(to_native(trained_like(BASE)), threads)


def test_a_run_leaves_nothing_for_the_next_one():
    run = Native().open(to_native(trained_like(BASE)), threads=1)
    images = np.random.default_rng(0).standard_normal((2, 3, 16, 16)).astype(np.float32)
    first = run(images[0])
    assert not np.array_equal(run(images[1]), first)
    np.testing.assert_array_equal(run(images[0]), first)


def words_changed(place: int, value: int) -> Callable[[bytes], bytes]:
    def change(content: bytes) -> bytes:
        words = np.frombuffer(content, "<i4").copy()
        words[place] = value
        return words.tobytes()

    return change


FIRST_INDEX = 46 + 16 * 27
DAMAGES = {
    "empty": lambda content: b"",
    "cut short": lambda content: content[:-4],
    "too long": lambda content: content + bytes(4),
    "half a word": lambda content: content[:-2],
    "another magic": words_changed(0, 7),
    "another version": words_changed(1, 2),
    "no groups": words_changed(7, 0),
    "three groups": words_changed(7, 3),
    "channels by the million": words_changed(6, 1 << 20),
    "stages without end": words_changed(13, 1 << 30),
    "no growth": words_changed(15, 0),
    "classifier of more than there is": words_changed(12, 4096),
    "index out of range": words_changed(FIRST_INDEX, 16),
    "negative index": words_changed(FIRST_INDEX, -1),
    "more columns from below than there are": words_changed(FIRST_INDEX + 16, 5),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_weights_that_are_not_one_whole_network_are_refused(damage: str):
    model = changed(to_native(trained_like(BASE)), "weights.bin", DAMAGES[damage])
    with pytest.raises(ValueError, match=r"weights\.bin must be"):
        Native().open(model, threads=1)


def test_a_header_with_one_other_number_is_refused_or_runs():
    model, rng = to_native(trained_like(BASE)), np.random.default_rng(0)
    image, refused = np.zeros((3, 16, 16), np.float32), 0
    for _ in range(200):
        other = words_changed(int(rng.integers(2, 18)), int(rng.integers(0, 40)))
        try:
            run = Native().open(changed(model, "weights.bin", other), threads=1)
        except ValueError:
            refused += 1
        else:
            run(image)
    assert refused > 150  # nearly every change asks for weights of another length


def test_sanitizers_find_nothing_in_a_run(tmp_path: Path):
    """The kernel built with address and undefined-behaviour checks, run alone with exactly the memory it asks for."""
    main = tmp_path / "main.c"
    main.write_text(
        '#include "condensenet.c"\n#include <stdio.h>\n#include <stdlib.h>\n'
        "int main(int n, char **arguments) {\n"
        '  FILE *file = fopen(arguments[1], "rb"); fseek(file, 0, SEEK_END);\n'
        "  size_t words = ftell(file) / 4; rewind(file);\n"
        "  int32_t *model = malloc(words * 4); if (fread(model, 4, words, file) != words) return 2;\n"
        "  size_t floats = condensenet_workspace(model, words); if (!floats) return 3;\n"
        "  size_t pixels = (size_t)model[2] * model[3] * model[4];\n"
        "  float *image = calloc(pixels, 4), *logits = malloc(4 * model[11]), *space = malloc(4 * floats);\n"
        "  condensenet_run(model, image, logits, space);\n"
        "  free(model); free(image); free(logits); free(space); return n != 2; }\n"
    )
    shutil.copy(KERNEL_FILE, tmp_path)
    checks = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize=alignment", "-static-libasan"]
    built = subprocess.run(
        [compiler() or "cc", *checks, "-o", "main", "main.c"], cwd=tmp_path, capture_output=True, text=True
    )
    if built.returncode != 0:
        pytest.skip(f"no sanitizers here: {built.stderr[-200:]}")
    for number, config in enumerate([BASE, varied(input_shape=(3, 97, 101)), varied(input_shape=(1, 7, 13))]):
        (tmp_path / f"{number}.bin").write_bytes(files_of(to_native(trained_like(config)))["weights.bin"])
        done = subprocess.run([tmp_path / "main", f"{number}.bin"], cwd=tmp_path, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")


def files_of(model: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(model)) as archive:
        return {entry.filename: archive.read(entry) for entry in archive.infolist()}


def changed(model: bytes, name: str, change: Callable[[bytes], bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for other, content in files_of(model).items():
            archive.writestr(other, change(content) if other == name else content)
    return buffer.getvalue()


def test_the_agent_times_a_model_on_the_kernel(tmp_path: Path):
    save_native(trained_like(BASE), tmp_path / "model.zip")
    policy = {"warmup_runs": 1, "warmup_s": 0.0, "runs": 3, "run_s": 0.0, "threads": 1, "samples_kept": 10}
    report = measure_models([tmp_path / "model.zip"], {**policy, "runtime": "native"})
    assert (report["runtime"], report["runtime_version"]) == ("native", Native.VERSION)
    assert len(report["models"][0]["samples_ms"]) == 3


def test_infer_takes_the_first_compiler_that_is_for_its_processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    network, own = trained_like(BASE), compiler()
    model, tools = tmp_path / "model.native.zip", tmp_path / "tools"
    save_native(network, model)
    tools.mkdir()
    foreign, right = tools / "cc", tools / "gcc"
    foreign.write_text('#!/bin/sh\nwhile [ "$1" != -o ]; do shift; done\necho of another processor > "$2"\n')
    right.write_text(f'#!/bin/sh\nexec {own} "$@"\n')
    for tool in (foreign, right):
        tool.chmod(0o755)
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(infer.shutil, "which", lambda name: str(tools / name) if (tools / name).exists() else None)
    assert difference(network, infer.open_model(model), images=2) <= 1e-5
    right.unlink()
    with pytest.raises(ValueError, match=rf"the processor that this Python runs on .*, but {foreign} isn't; .*CC="):
        infer.open_model(model)
