"""The Ray driver: starts or joins Ray in a process of its own, and runs the jobs that come through a pipe.

Notable choices:
- The run has no state of its own to save: Tune's trials, checkpoints and tables are thrown away with it. What
  matters is in the study's tables and in the trials' folders.
- Ray ends the whole process when it loses its own servers, so the process is not the controller's.
- Only a process of `search.engines.ray.supervisor` calls `drive`, which imports Ray.
"""

from __future__ import annotations

import os
import socket
import threading
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from search.engines.ray.bridge import JobBridge, own_servers
from search.engines.ray.checks import dashboard_is_installed
from search.engines.ray.plan import Plan
from search.engines.ray.run_folder import TEMPORARY, TOKEN

OBJECT_STORE_BYTES = 150 * 2**20  # hardly used: a job is a few kilobytes
LESS_OUTPUT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_CHDIR_TO_TRIAL_DIR": "0", "RAY_AIR_NEW_OUTPUT": "0"}


def drive(pipe: Connection, plan: Plan) -> None:
    """Start or join Ray, then run jobs until the process is killed; says over the pipe what happens."""
    _set_environment(plan)
    dashboard_url, resources = _start_ray(plan)
    bridge = JobBridge(pipe, plan, own_servers() if plan.address is None else {})
    mailbox = bridge.open_mailbox()
    pipe.send(("ready", dashboard_url, resources))
    threading.Thread(target=bridge.listen, daemon=True).start()
    threading.Thread(target=bridge.keep_mailbox, args=(mailbox,), daemon=True).start()
    from search.engines.ray.tune import run_tune

    run_tune(bridge)


def _set_environment(plan: Plan) -> None:
    """Set what Ray and Tune read from the environment when they are imported.

    Raises:
        ConnectionError: the cluster doesn't answer.
    """
    os.environ |= LESS_OUTPUT | {
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
        "TUNE_GLOBAL_CHECKPOINT_S": "1e9",
        "TUNE_MAX_PENDING_TRIALS_PG": str(plan.workers),
        "TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S": "1e9",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
    }
    if plan.address is None:
        # Ray's servers are killed at the end, and would leave their temporary files where they are.
        os.environ["TMPDIR"] = str(Path(plan.folder) / TEMPORARY)
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(Path(plan.folder) / TOKEN)}
        os.environ.pop("RAY_AUTH_TOKEN", None)  # the user's, of some cluster: it would win
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # on any system: Ray's servers listen on loopback only
    elif plan.address != "auto":
        check_answers(plan.address)
    # How long a call to a dead worker waits to hear why it died; else memory's kills would pass for lost connections.
    os.environ.setdefault("RAY_timeout_ms_task_wait_for_death_info", "10000")


def _start_ray(plan: Plan) -> tuple[str, dict[str, float]]:
    """Start a Ray of our own or join the cluster; return the dashboard's URL ("" for none) and what there is."""
    import ray

    threads = {f"{library}_NUM_THREADS": str(plan.threads) for library in ("OMP", "MKL", "OPENBLAS")}
    own: dict[str, Any] = {
        "num_cpus": plan.workers * plan.threads,
        "object_store_memory": OBJECT_STORE_BYTES,
        "include_dashboard": dashboard_is_installed(),
        "dashboard_host": "127.0.0.1",
        "_temp_dir": str(Path(plan.folder) / "r"),
    }
    context = ray.init(
        address=plan.address or "local",
        namespace=Path(plan.folder).name,
        log_to_driver=False,
        logging_level="ERROR",
        runtime_env={"env_vars": threads | LESS_OUTPUT},
        **(own if plan.address is None else {}),
    )
    return getattr(context, "dashboard_url", "") or "", dict(ray.cluster_resources())


def check_answers(address: str) -> None:
    """Raise ConnectionError when nothing listens at HOST:PORT; Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=10.0).close()
    except (OSError, ValueError) as error:
        raise ConnectionError(f"nothing answers there ({error})") from error
