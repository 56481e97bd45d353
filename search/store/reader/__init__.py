"""Reading studies: columns by SQL into plain frozen rows. Nothing here needs Optuna, torch or a lock."""

from search.store.reader.beliefs import read_belief, read_proposals, read_reached
from search.store.reader.history import (
    newest_events,
    read_artifact_paths,
    read_artifacts,
    read_attempts,
    read_curve,
    read_status,
)
from search.store.reader.latencies import (
    LatencySource,
    count_rows_of_configs,
    devices_measured,
    latencies_of_configs,
    read_latencies,
    read_prices,
)
from search.store.reader.points import read_points
from search.store.reader.predictions import (
    class_predictions_of,
    file_predictions_of,
    predictions_of_rows,
    read_class_predictions,
)
from search.store.reader.requests import count_waiting_requests, read_waiting_requests
from search.store.reader.shortlist import read_shortlist
from search.store.reader.studies import find_study, holds_study, list_studies, objective_of
from search.store.reader.trials import (
    continued_by,
    count_continued,
    count_states,
    count_test_evaluations,
    find_trial,
    read_objectives,
    read_trials,
)

__all__ = [
    "LatencySource",
    "class_predictions_of",
    "continued_by",
    "count_continued",
    "count_rows_of_configs",
    "count_states",
    "count_test_evaluations",
    "count_waiting_requests",
    "devices_measured",
    "file_predictions_of",
    "find_study",
    "find_trial",
    "holds_study",
    "latencies_of_configs",
    "list_studies",
    "newest_events",
    "objective_of",
    "predictions_of_rows",
    "read_artifact_paths",
    "read_artifacts",
    "read_attempts",
    "read_belief",
    "read_class_predictions",
    "read_curve",
    "read_latencies",
    "read_objectives",
    "read_points",
    "read_prices",
    "read_proposals",
    "read_reached",
    "read_shortlist",
    "read_status",
    "read_trials",
    "read_waiting_requests",
]
