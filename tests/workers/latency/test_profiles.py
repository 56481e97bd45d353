"""Device profiles: from counted instructions to milliseconds, the range that they hold in, and their files."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from space.errors import InvalidSettings, MeasurementFailed, ReadOnlyFolder
from workers.latency import profiles
from workers.latency.calibration import Calibration, fit_profile, rank_correlation, read_networks
from workers.latency.profiles import (
    CLASSES,
    Estimate,
    Profile,
    check_writable,
    load_profile,
    save_profile,
    shipped_profiles,
    virtual_device,
)

SHIPPED = load_profile("raspberry-pi-5")
DATA = profiles._SHIPPED / "raspberry-pi-5.csv"
NETWORKS = read_networks(DATA, "pi5_ms")
PI_4 = read_networks(DATA, "pi4_ms")

# Counted in the emulated ARM device: five runs (VGG-16: one), onnxruntime 1.32.0, batch 1.
CONDENSENET_86 = dict(
    zip(CLASSES, (10510652, 1700096, 703760, 8340858, 5259897, 16208012, 2521759, 24048098), strict=True)
)
VGG_16 = dict(
    zip(
        CLASSES,
        (129990059, 7960331, 3173069, 787377167, 48933241, 3902587297, 43767282, 218971769),
        strict=True,
    )
)
# Exact prices in ms per million, for made-up devices whose latencies follow from the counts without error.
PRICES = dict(zip(CLASSES, (0.3, 0.1, 0.1, 0.2, 0.25, 0.3, 0.24, 0.05), strict=True))

amounts = st.floats(min_value=1.0, max_value=1e10)
any_counts = st.fixed_dictionaries(dict.fromkeys(CLASSES, amounts))


def priced(counts, prices=PRICES) -> float:
    return math.fsum(prices[name] * counts[name] / 1e6 for name in CLASSES)


def exactly_linear(rows=NETWORKS):
    return [(counts, priced(counts)) for counts, _ in rows]


def times(counts, factor):
    return {name: count * factor for name, count in counts.items()}


def relative_error(estimate: Estimate, latency: float) -> float:
    return abs(estimate.latency_ms / latency - 1)


def holds(estimate: Estimate, latency: float) -> bool:
    return estimate.interval_low_ms <= latency <= estimate.interval_high_ms


# The shipped profile


def test_the_shipped_profile_is_the_fit_of_the_shipped_networks():
    assert shipped_profiles() == ["raspberry-pi-5"]
    again = fit_profile("raspberry-pi-5", NETWORKS)
    for fit in ("classes", "two"):
        assert getattr(SHIPPED, fit).ms_per_million == pytest.approx(getattr(again, fit).ms_per_million, abs=1e-6)
        shipped = getattr(SHIPPED, fit).leave_one_out
        assert shipped.margin == pytest.approx(getattr(again, fit).leave_one_out.margin, rel=1e-6)
    assert SHIPPED.shares == again.shares
    assert SHIPPED.millions == again.millions
    assert SHIPPED.networks == 36


def test_leaving_one_network_out_the_shipped_profile_is_off_by_one_percent_at_the_median_and_five_at_most():
    for errors in (
        SHIPPED.estimate_leave_one_out,
        SHIPPED.classes.leave_one_out,
        SHIPPED.two.leave_one_out,
    ):
        assert errors.median_error <= 0.01
        assert errors.max_error <= 0.05
        assert errors.rank_correlation is not None
        assert errors.rank_correlation > 0.99


def test_intervals_hold_for_networks_left_out_of_the_whole_calibration():
    estimates = [
        fit_profile("left-out", NETWORKS[:i] + NETWORKS[i + 1 :]).estimate(counts)
        for i, (counts, _) in enumerate(NETWORKS)
    ]
    held = [holds(estimate, latency) for estimate, (_, latency) in zip(estimates, NETWORKS, strict=True)]
    assert np.mean(held) >= 0.95
    widths = [(e.interval_high_ms - e.interval_low_ms) / e.latency_ms for e in estimates]
    assert np.median(widths) < 0.1  # an interval that holds everything says nothing


def test_a_calibrated_network_is_inside_the_range():
    for counts, latency in NETWORKS:
        estimate = SHIPPED.estimate(counts)
        assert not estimate.extrapolates
        assert estimate.reason == ""
        assert relative_error(estimate, latency) < 0.05


# Outside the calibrated range


def test_a_condensenet_has_too_many_integer_instructions_for_the_shipped_range():
    estimate = SHIPPED.estimate(CONDENSENET_86)
    assert estimate.by_fit == pytest.approx({"classes": 9.87, "two": 10.82}, abs=0.02)
    assert estimate.interval_low_ms < 9.87 < estimate.latency_ms < 10.82 < estimate.interval_high_ms
    assert estimate.extrapolates
    assert estimate.reason == "34.7% of its instructions are int (calibrated on 16.6% to 28.1%)"


def test_a_vgg_is_too_large_and_too_dense_for_the_shipped_range():
    estimate = SHIPPED.estimate(VGG_16)
    assert estimate.extrapolates
    assert "5143 M instructions in all (calibrated on 4.735 to 107 M)" in estimate.reason
    assert "are vfma" in estimate.reason
    assert "\n" not in estimate.reason


@pytest.mark.parametrize("factor", [1 / 100, 100])
def test_a_network_of_the_calibrated_mix_is_outside_by_size_alone(factor):
    counts, _ = NETWORKS[0]
    estimate = SHIPPED.estimate(times(counts, factor))
    assert "instructions in all" in estimate.reason
    assert "%" not in estimate.reason


def test_an_interval_is_twice_as_wide_outside_and_once_more_for_each_doubling_of_size():
    counts, _ = max(NETWORKS, key=lambda network: network[1])  # the largest network there is
    inside = SHIPPED.estimate(counts)
    for doublings in (1, 2, 6):
        outside = SHIPPED.estimate(times(counts, 2**doublings))
        for end in ("interval_low_ms", "interval_high_ms"):
            plain = math.log(getattr(inside, end) / inside.latency_ms)
            assert math.log(getattr(outside, end) / outside.latency_ms) == pytest.approx((2 + doublings) * plain)


def test_intervals_hold_also_where_half_the_networks_say_nothing_of_the_other_half():
    by_mix = sorted(NETWORKS, key=lambda network: network[0]["int"] / sum(network[0].values()))
    marked = []
    for half, other in ((by_mix[:18], by_mix[18:]), (by_mix[18:], by_mix[:18])):
        profile = fit_profile("half", half)
        marked += [
            holds(profile.estimate(counts), latency)
            for counts, latency in other
            if profile.estimate(counts).extrapolates
        ]
    assert len(marked) >= 5
    assert np.mean(marked) >= 0.9


# What an estimate promises


@settings(max_examples=60, deadline=None)
@given(any_counts)
def test_an_interval_contains_its_estimate_and_both_fits(counts):
    estimate = SHIPPED.estimate(counts)
    assert 0 < estimate.interval_low_ms <= estimate.latency_ms <= estimate.interval_high_ms < math.inf
    assert set(estimate.by_fit) == {"classes", "two"}
    assert all(holds(estimate, latency * factor) for latency in estimate.by_fit.values() for factor in (0.999, 1.001))
    assert estimate.extrapolates == bool(estimate.reason)


@settings(max_examples=60, deadline=None)
@given(any_counts, st.sampled_from(CLASSES), amounts)
def test_more_instructions_of_any_class_never_take_less_time(counts, name, more):
    fewer, many = SHIPPED.estimate(counts), SHIPPED.estimate(counts | {name: counts[name] + more})
    assert many.latency_ms >= fewer.latency_ms
    assert all(many.by_fit[fit] >= fewer.by_fit[fit] for fit in fewer.by_fit)


@settings(max_examples=60, deadline=None)
@given(any_counts, st.floats(min_value=1e-3, max_value=1e3))
def test_as_many_times_the_instructions_take_as_many_times_as_long(counts, factor):
    once, often = SHIPPED.estimate(counts), SHIPPED.estimate(times(counts, factor))
    assert often.latency_ms == pytest.approx(factor * once.latency_ms)


def test_the_sum_of_all_instructions_may_be_given_and_changes_nothing():
    total = sum(CONDENSENET_86.values())
    assert SHIPPED.estimate(CONDENSENET_86 | {"all": total * 1.001}) == SHIPPED.estimate(CONDENSENET_86)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vfma": None}, "vfma is missing"),
        ({"load": -1.0}, "load is -1.0"),
        ({"load": math.nan}, "load is nan"),
        ({"int": math.inf}, "int is inf"),
        (dict.fromkeys(CLASSES, 0), "all are 0"),
        ({"all": 1e6}, "must add up to all = 1000000, but make 69293132"),
    ],
)
def test_counts_that_make_no_sense_are_refused_in_one_line(change, message):
    counts = {name: count for name, count in (CONDENSENET_86 | change).items() if count is not None}
    with pytest.raises(MeasurementFailed, match=message) as caught:
        SHIPPED.estimate(counts)
    assert "\n" not in str(caught.value)


# Calibration on a device of one's own


def test_prices_of_a_device_that_has_exact_ones_are_found_again():
    profile = fit_profile("exact", exactly_linear())
    assert profile.estimate_leave_one_out.max_error < 0.02  # the half that is the fit of two prices can't be exact
    assert profile.classes.leave_one_out.max_error < 0.001
    assert "free" in profile.classes.method


def test_a_device_that_pays_alike_for_all_instructions_is_known_from_eight_networks():
    rows = [(counts, 0.2 * sum(counts.values()) / 1e6) for counts, _ in NETWORKS]
    profile = fit_profile("alike", rows[:8])
    for counts, latency in rows[8:]:
        assert profile.estimate(counts).latency_ms == pytest.approx(latency)


def test_eight_networks_drawn_at_random_are_enough_for_a_raspberry_pi_5():
    rng = np.random.default_rng(1)
    medians, worst_inside = [], []
    for _ in range(20):
        order = rng.permutation(len(NETWORKS))
        profile = fit_profile("drawn", [NETWORKS[i] for i in order[:8]])
        others = [(profile.estimate(NETWORKS[i][0]), NETWORKS[i][1]) for i in order[8:]]
        medians.append(np.median([relative_error(*other) for other in others]))
        worst_inside += [relative_error(*other) for other in others if not other[0].extrapolates]
    assert np.quantile(medians, 0.95) <= 0.01
    assert max(worst_inside) <= 0.05


def test_a_noisy_device_gets_intervals_wide_enough_for_its_noise():
    rng = np.random.default_rng(2)
    held = []
    for _ in range(20):
        order = rng.permutation(len(PI_4))
        profile = fit_profile("pi-4", [PI_4[i] for i in order[:8]], like=SHIPPED)
        held += [holds(profile.estimate(PI_4[i][0]), PI_4[i][1]) for i in order[8:]]
    assert np.mean(held) >= 0.9


def test_a_slower_device_of_the_same_kind_gains_from_the_profile_it_is_like():
    rng = np.random.default_rng(3)
    truth = SHIPPED.classes.ms_per_million
    worst: dict[str, list[float]] = {"alone": [], "like": []}
    methods = set()
    for _ in range(20):
        order = rng.permutation(len(NETWORKS))
        rows = [(NETWORKS[i][0], 5 * priced(NETWORKS[i][0], truth) * rng.normal(1, 0.02)) for i in order[:8]]
        for name, like in (("alone", None), ("like", SHIPPED)):
            profile = fit_profile("slower", rows, like=like)
            methods.add(profile.classes.method)
            error = [
                profile.estimate(counts).by_fit["classes"] / priced(counts, truth) / 5 - 1 for counts, _ in NETWORKS
            ]
            worst[name].append(max(map(abs, error)))
    assert any("raspberry-pi-5 times one factor" in method for method in methods)
    assert np.median(worst["like"]) < 0.8 * np.median(worst["alone"])


def test_a_profile_says_what_it_was_made_from():
    about = Calibration(title="My board", runtime="ncnn", threads=4, origin="mine", counted_with=(("ncnn", "1.0"),))
    profile = fit_profile("board", NETWORKS[:9], about)
    assert (profile.title, profile.runtime, profile.threads, profile.origin) == ("My board", "ncnn", 4, "mine")
    assert profile.networks == 9
    assert profile.created_with["ncnn"] == "1.0"
    assert "numpy" in profile.created_with
    assert "least leave-one-out error of 3 candidates" in profile.classes.method


@pytest.mark.parametrize(
    ("networks", "message"),
    [
        (NETWORKS[:7], "at least 8 different networks, but 'mine' has 7"),
        (NETWORKS[:7] + NETWORKS[:7], "at least 8 different networks, but 'mine' has 7"),
        ([*NETWORKS[:8], (NETWORKS[8][0], 0.0)], "network 8 of profile 'mine': a latency must be finite and > 0"),
        ([*NETWORKS[:8], (NETWORKS[8][0], math.nan)], "a latency must be finite"),
        ([({"all": 5.0}, 1.0), *NETWORKS], "network 0 of profile 'mine': the counts must name"),
    ],
)
def test_networks_that_make_no_profile_are_refused_with_the_reason(networks, message):
    with pytest.raises(InvalidSettings, match=message):
        fit_profile("mine", networks)


def test_a_name_that_is_no_file_name_is_refused():
    with pytest.raises(InvalidSettings, match=r"no profile 'My Board!' can be made: `name`: .*pattern") as caught:
        fit_profile("My Board!", NETWORKS)
    assert "\n" not in str(caught.value)


def test_ranks_of_equal_values_are_shared_and_a_constant_has_none():
    assert rank_correlation(np.array([1.0, 2.0, 2.0, 3.0]), np.array([10.0, 20.0, 20.0, 30.0])) == pytest.approx(1.0)
    assert rank_correlation(np.array([1.0, 2.0, 3.0]), np.array([3.0, 2.0, 1.0])) == pytest.approx(-1.0)
    assert rank_correlation(np.array([1.0, 2.0, 3.0]), np.array([5.0, 5.0, 5.0])) is None


# Files


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.floats(min_value=0.1, max_value=1e4), min_size=8, max_size=12),
    st.sampled_from(["a", "pi-5", "board_2.1"]),
)
def test_a_profile_read_back_is_the_profile_written(tmp_path_factory, latencies, name):
    profile = fit_profile(name, [(counts, ms) for (counts, _), ms in zip(NETWORKS, latencies, strict=False)])
    path = tmp_path_factory.mktemp("profile") / "mine.json"
    save_profile(profile, path)
    assert load_profile(path) == profile
    assert load_profile(str(path)) == profile


def test_a_profile_in_this_folder_goes_by_its_name_and_is_another_device_once_it_changed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mine = SHIPPED.model_copy(update={"name": "my-pi5"})
    save_profile(mine, tmp_path / "my-pi5.json")
    assert load_profile("my-pi5") == mine
    profile, device = virtual_device("virtual:my-pi5")
    assert profile == mine
    assert re.fullmatch("virtual:my-pi5@[0-9a-f]{8}", device)
    assert virtual_device("virtual:my-pi5")[1] == device
    save_profile(mine.model_copy(update={"title": "another board"}), tmp_path / "my-pi5.json")
    assert virtual_device("virtual:my-pi5")[1] != device
    assert virtual_device("virtual:raspberry-pi-5") == (SHIPPED, "virtual:raspberry-pi-5")


def test_a_profile_file_has_sorted_keys_on_lines_of_their_own(tmp_path):
    save_profile(SHIPPED, tmp_path / "new" / "p.json")
    text = (tmp_path / "new" / "p.json").read_text()
    assert text == json.dumps(json.loads(text), indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    assert '"ms_per_million": {' in text.splitlines()[9]


def changed(path: tuple[str, ...], value: object) -> dict:
    """The shipped profile's document with one value replaced; None takes the key away."""
    document = SHIPPED.model_dump(mode="json")
    table = document
    for key in path[:-1]:
        table = table[key]
    if value is None:
        del table[path[-1]]
    else:
        table[path[-1]] = value
    return document


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("thread",), 1, r"unknown key `thread`"),
        (("runtime",), None, r"`runtime` is missing"),
        (("format",), 2, r"`format`: Input should be 1"),
        (("threads",), "1", r"`threads`: Input should be a valid integer"),
        (("networks",), 7, r"`networks`: .*greater than or equal to 8"),
        (("classes", "ms_per_million", "vfma"), -0.1, r"`classes.ms_per_million.vfma`: .*greater than or equal to 0"),
        (("classes", "ms_per_million", "vfma"), None, r"`classes`: the keys must be exactly branch, .*, but are"),
        (("two", "ms_per_million", "int"), 0.1, r"`two`: the keys must be exactly all, vfma, but are all, int, vfma"),
        (("two", "leave_one_out", "margin"), math.inf, r"`two.leave_one_out.margin`: .*finite"),
        (("shares", "int"), [0.3, 0.2], r"`shares.int`: low <= high must hold, but got \(low=0.3, high=0.2\)"),
        (("millions", "all"), None, r"`millions`: the keys must be exactly all, branch"),
        (("name",), "../up", r"`name`: .*pattern"),
    ],
)
def test_a_wrong_profile_file_is_refused_by_file_and_key(tmp_path, path, value, message):
    file = tmp_path / "wrong.json"
    file.write_text(json.dumps(changed(path, value)))
    with pytest.raises(InvalidSettings, match=rf"the profile .*wrong\.json is not valid: {message}") as caught:
        load_profile(file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"null"])
def test_a_file_that_holds_no_profile_is_refused_in_one_line(tmp_path, content):
    (tmp_path / "p.json").write_bytes(content)
    with pytest.raises(InvalidSettings, match=r"p\.json is not valid") as caught:
        load_profile(tmp_path / "p.json")
    assert "\n" not in str(caught.value)


def test_a_profile_that_is_not_there_is_answered_with_those_that_are(tmp_path):
    with pytest.raises(InvalidSettings, match="no profile is called raspberry-pi-6; there are raspberry-pi-5"):
        load_profile("raspberry-pi-6")
    with pytest.raises(InvalidSettings, match="can't be read"):
        load_profile(tmp_path)


def test_a_profile_validates_the_same_from_python_as_from_a_file():
    with pytest.raises(ValueError, match="greater than or equal to 8"):
        Profile.model_validate(changed(("networks",), 3))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("network\n1\n", r"line 2: `branch_million` must be a number, but got no such column"),
        (",".join(f"{name}_million" for name in CLASSES) + ",ms\n" + "1," * 8 + "fast\n", r"line 2: `ms` .* 'fast'"),
        (",".join(f"{name}_million" for name in CLASSES) + ",ms\n" + "1,1\n", r"line 2: `store_million` .* None"),
    ],
)
def test_a_calibration_file_with_a_hole_is_refused_by_line_and_column(tmp_path, text, message):
    (tmp_path / "mine.csv").write_text(text)
    with pytest.raises(InvalidSettings, match=message):
        read_networks(tmp_path / "mine.csv", "ms")


def test_a_calibration_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InvalidSettings, match=r"absent\.csv can't be read"):
        read_networks(tmp_path / "absent.csv", "ms")


@pytest.mark.parametrize("name", ["MyPi5.json", ".json", "my pi.json", "-pi.json", f"{'a' * 65}.json", "pi\n.json"])
def test_a_name_that_no_profile_may_have_is_refused_before_anything_is_measured(tmp_path, name: str):
    with pytest.raises(InvalidSettings, match="lower-case letters"):
        check_writable(tmp_path / name)


def test_a_path_for_a_profile_must_be_free_and_its_folder_writable(tmp_path):
    assert check_writable(tmp_path / "new" / "my-pi5.json") == "my-pi5"
    assert not list((tmp_path / "new").iterdir())
    taken = tmp_path / "taken.json"
    taken.write_text("{}")
    with pytest.raises(InvalidSettings, match="exists"):
        check_writable(taken)
    with pytest.raises(ReadOnlyFolder):
        check_writable(taken / "my-pi5.json")
