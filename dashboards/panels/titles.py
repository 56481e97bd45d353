"""The panels' titles on page and report, and the question that each panel answers."""

TITLES = {
    "front": ("Pareto front", "How accurate a network can be for what it costs."),
    "macs-latency": ("Macs against latency", "Where counting multiply-adds would mislead you about the device."),
    "parallel": (
        "Every choice at once",
        "Drag along an axis, or choose it here: the table below keeps the trials inside.",
    ),
    "importance": ("What matters", "Which choices decide accuracy, and which decide latency."),
    "curves": ("Learning curves", "How the front's networks learned, with every condensing stage and stop."),
    "progress": ("Progress", "How far the search has come, and who works on it."),
    "timeline": ("Who worked when", "Each worker's trainings and each device's measurements, with waits and attempts."),
    "belief": ("What the search believes", "Where the front is predicted to go, what is proposed next, and why."),
}
