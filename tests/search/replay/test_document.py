"""The settings of a replayed study: made from its table, or from a study file that must agree with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from dashboards.terminal.answers import outline_document, search_lines
from search.replay.document import SHARE_INSIDE
from search.replay.table import ReplayTable
from search.settings import StudySettings
from search.study_file import load_replay, load_settings, settings_from
from search.time_estimate import outline_study
from space.errors import InvalidSettings, TableUnreadable
from tests.search.replay.tiny_tables import TINY, rewritten


def study_file(folder: Path, text: str) -> Path:
    path = folder / "study.toml"
    path.write_text(f'format = 1\n[study]\nname = "mine"\n{text}')
    return path


def test_without_a_study_file_everything_comes_from_the_table(table_path: Path, table: ReplayTable):
    settings = load_replay(str(table_path))
    assert (settings.replay.table, settings.replay.sha256) == (str(table_path), table.sha256)
    assert settings.search_space() == table.space
    assert settings.training_space().from_params({}) == TINY.training
    assert settings.data.of_content() == TINY.data.of_content()
    assert settings.latency.devices == ("virtual:raspberry-pi-5",)
    assert settings.latency.runtime_on("virtual:raspberry-pi-5") == "native"
    assert (settings.engine.workers, settings.replay.seed) == (8, 0)
    assert settings.study.trainings == 5  # half of the 10 of 13 networks that are inside the limit


@pytest.mark.parametrize("shipped", [True, False])
def test_the_limit_leaves_a_fifth_to_a_third_of_the_networks_outside(shipped: bool, table_path: Path):
    from search.replay.table import read_table

    name = "condensebench" if shipped else str(table_path)
    settings, table = load_replay(name), read_table(name)
    latencies = [table.latency_of(config, "native") for config in table.seeds]
    limit_ms = settings.search_budget().max_latency_ms
    assert limit_ms is not None
    outside = sum(latency is not None and latency.high_ms > limit_ms for latency in latencies) / len(latencies)
    assert 0.2 <= outside <= 0.34
    assert SHARE_INSIDE == 0.75


def test_every_setting_can_be_set(table_path: Path):
    changes = ["study.seed=7", "search.sampler=random", "budget.max_macs=20000", "replay.seed=1", "study.name=other"]
    settings = load_replay(str(table_path), None, changes)
    assert (settings.study.seed, settings.training_seed, settings.search.sampler) == (7, 1, "random")
    assert (settings.study.name, settings.budget.max_macs) == ("other", 20000)
    onnx = load_replay(str(table_path), None, ["latency.runtime=onnxruntime"])
    assert onnx.latency.runtime_on("virtual:raspberry-pi-5") == "onnxruntime"


def test_a_study_file_keeps_its_own_search_budget_engine_and_part_of_the_space(table_path: Path, tmp_path: Path):
    path = study_file(
        tmp_path,
        "trainings = 3\n[space]\ngroups = [2]\nlayers = 1\n[budget]\nmax_macs = 9\n[search]\nsampler = 'gp'\n"
        "[engine]\nworkers = 5\n[data]\nfolder = '/elsewhere'\n",
    )
    settings = load_replay(str(table_path), path)
    assert (settings.study.name, settings.study.trainings, settings.engine.workers) == ("mine", 3, 5)
    assert settings.search_space().size == 2  # condense_factor 1 or 2
    assert (settings.budget.max_latency_ms, settings.budget.max_macs, settings.search.sampler) == (None, 9, "gp")


def test_a_study_file_may_name_its_table_itself(table_path: Path, tmp_path: Path):
    path = study_file(tmp_path, f'[replay]\ntable = "{table_path}"\ntime = "none"\n')
    settings = load_settings(path)
    assert settings == load_replay(str(table_path), path)
    assert settings.replay.time == "none"
    assert settings_from(settings.model_dump(mode="json"), "the stored settings") == settings


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[space]\ngroups = [1, 4]\n", r"space.groups holds 4, for which .* has no trainings"),
        ("[space]\nnum_stages = [1, 2]\n", r"space.num_stages holds 1"),
        ("[space]\ngrowth = 8\n", r"space.growth_1 holds 8"),
        ('[space]\ngrowth_rule = "doubling"\ngrowth = 4\n', r"space.growth_2 holds 8"),
        ("[space]\ndropout = { low = 0.0, high = 0.5 }\n", r"space.dropout holds 0.0"),
        ("[space]\ninput_shape = [1, 16, 16]\n", r"input_shape"),
        ("[space]\nlayer = 1\n", r"unknown key `space.layer`"),
        ("[training]\nepochs = 30\n", r"training.epochs = 30, but the trainings of .* had 3"),
        ('[training]\nstart = "trial:a/1"\n', r"training.start = 'trial:a/1', but the trainings of .* had 'none'"),
        ('[data]\ndataset = "cifar10"\n', r"data.dataset = 'cifar10'"),
        ("[data]\nimage = 3\n", r"unknown key `data.image`"),
        ('[engine]\nkind = "ray"\n', r"engine.kind = 'ray', but a replay trains nothing"),
        ('[latency]\ndevices = ["host"]\n', r"latency.devices must be"),
        ("[latency]\nthreads = 2\n", r"latency.threads must be 1"),
        ('[latency]\nruntime = "ncnn"\n', r"latency.runtime must be one of .*native, onnxruntime"),
        ('[replay]\ntabel = "x"\n', r"unknown key `replay.tabel`"),
        (f'[replay]\nsha256 = "{64 * "0"}"\n', r"replay.sha256 is not that"),
    ],
)
def test_what_the_table_cannot_answer_is_refused(text: str, message: str, table_path: Path, tmp_path: Path):
    with pytest.raises(InvalidSettings, match=message):
        load_replay(str(table_path), study_file(tmp_path, text))


def test_only_the_objective_that_a_table_holds_can_be_maximised(table_path: Path):
    assert load_replay(str(table_path), overrides=["study.objective=top1"]).study.objective == "top1"
    with pytest.raises(
        InvalidSettings, match=r"holds top-1 alone, so study.objective must be 'top1', but is 'macro_f1'"
    ):
        load_replay(str(table_path), overrides=["study.objective=macro_f1"])


def test_the_number_of_images_must_be_the_tables_where_it_has_one(table_path: Path, tmp_path: Path):
    whole = rewritten(table_path, tmp_path, about=lambda about: about["data"].pop("images", None))
    assert load_replay(str(whole)).data.images is None
    with pytest.raises(InvalidSettings, match=r"data.images = 100, but the trainings of .* had none"):
        load_replay(str(whole), None, ["data.images=100"])
    assert load_replay("condensebench", None, ["data.images=12000"]).data.images == 12000
    with pytest.raises(InvalidSettings, match=r"data.images = 500, but the trainings of .* had 12000"):
        load_replay("condensebench", None, ["data.images=500"])


def test_a_study_file_that_replays_is_checked_without_its_images(table_path: Path, table: ReplayTable, tmp_path: Path):
    outline = outline_study(load_settings(study_file(tmp_path, f'[replay]\ntable = "{table_path}"\n')))
    assert (outline.data, outline.size) == (table.images, table.space.size)


def test_a_table_that_is_not_there_is_refused(tmp_path: Path):
    with pytest.raises(TableUnreadable, match="can't be read"):
        load_replay(str(tmp_path / "gone.csv.gz"))


def test_what_a_study_may_not_change_holds_table_seed_and_time_but_not_where_the_table_is(table_path: Path):
    settings = load_replay(str(table_path))

    def frozen(**changes: object) -> dict[str, object]:
        replay = settings.replay.model_copy(update=changes)
        return settings.model_copy(update={"replay": replay}).frozen_parts()

    assert frozen(table="/elsewhere.csv.gz") == settings.frozen_parts()
    for change in ({"seed": 1}, {"sha256": "0"}, {"time": "none"}):
        assert frozen(**change) != settings.frozen_parts()
    plain: StudySettings = settings.model_copy(update={"replay": StudySettings.model_fields["replay"].default})
    assert not any(name.startswith("replay") for name in plain.frozen_parts())


@pytest.mark.parametrize(
    ("stopping", "said"),
    [
        ("none", "every training runs to its end"),
        ("aggressive", "below 40 % of what is left of their schedule; all but the hopeless go on in the end"),
    ],
)
def test_check_says_when_trainings_end(tmp_path: Path, table_path: Path, stopping: str, said: str) -> None:
    text = f'[replay]\ntable = "{table_path}"\n[search]\nstopping = "{stopping}"\n'
    outline = outline_study(load_settings(study_file(tmp_path, text)))
    assert search_lines(outline)[-1].endswith(said)
    assert outline_document(outline, None)["stopping"] == stopping
