"""The badges of an answer: how far its figures can be trusted, in words that are explained on demand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from workers.latency.record import LatencyRecord

BADGES: Mapping[str, str] = {
    "verified on device": "pick measured the trained file on the device; the latency is that measurement's.",
    "verified by estimate": "pick counted the trained file's instructions again; the latency is estimated from them.",
    "tested": "Evaluated once on the test images, which no choice was made on.",
    "measured": "Timed on the device: a network of this shape with random weights, before it was trained.",
    "estimated": "Computed from counted ARM instructions; nothing was timed on the device.",
    "predicted": "By a model of the device, from the network's structure; nothing was timed.",
    "replayed": "Recorded in a table of earlier trainings; nothing was trained or measured here.",
    "not steady": "Other work disturbed the device during the measurement, so the latency may be too high.",
    "extrapolated": "The network lies outside the range that the estimate or prediction was calibrated on.",
    "quick": "Measured with the quick policy: fewer runs than a standard measurement.",
    "int8": "The latency is that of the network in 8 bits.",
}


def badges_of(latencies: Iterable[LatencyRecord], is_tested: bool) -> tuple[str, ...]:
    """Return the badges of a network, by its latency on each device: what was checked first, doubts last."""
    known = list(latencies)
    kinds, doubts = [], []
    for latency in known:
        replayed = latency.policy == "replayed"
        kinds += [str(latency.kind)] * (not latency.verified) + ["replayed"] * replayed
        doubts += ["not steady"] * (not latency.steady) + ["extrapolated"] * latency.extrapolates
        doubts += ["quick"] * (latency.policy == "quick") + ["int8"] * (latency.precision != "fp32")
    checked = []
    if known and all(latency.verified for latency in known):
        timed = all(latency.kind == "measured" for latency in known)
        checked.append("verified on device" if timed else "verified by estimate")
    tested = ["tested"] * is_tested
    return tuple(dict.fromkeys((*checked, *tested, *kinds, *doubts)))
