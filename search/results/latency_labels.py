"""The doubts about a latency, in the words that are shown beside it everywhere."""

from __future__ import annotations

from workers.latency.record import LatencyRecord


def doubts_text(latency: LatencyRecord) -> str:
    """Return the words to put behind a latency's kind: ", quick, not steady", ", int8, extrapolated", or ""."""
    words = [latency.precision] * (latency.precision != "fp32")
    words += doubts(latency.policy == "quick", latency.steady, latency.extrapolates)
    return "".join(f", {word}" for word in words)


def doubts(quick: bool, steady: bool, extrapolates: bool) -> list[str]:
    """Return the doubts about a latency, one text for each."""
    return ["quick"] * bool(quick) + ["not steady"] * (not steady) + ["extrapolated"] * bool(extrapolates)
