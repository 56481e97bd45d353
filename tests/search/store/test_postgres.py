"""The tables on a real PostgreSQL, also when several processes come at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa

from search.store import reader
from search.store.connection.database import open_for_reading, open_for_writing
from search.store.tables import metadata

pytestmark = pytest.mark.slow(seconds=10)

ROOT = Path(__file__).parents[3]
LAUNCH = """
import sys
from search.study import open_study
from tests.search.tiny_studies import tiny_settings

print("ready", flush=True)
input()
print(open_study(tiny_settings(), sys.argv[1], resume=True).store.study_id)
"""


def test_every_table_is_made_on_postgresql(postgres_url: str):
    open_for_writing(postgres_url).dispose()
    engine = open_for_reading(postgres_url)
    assert set(sa.inspect(engine).get_table_names()) >= set(metadata.tables)
    engine.dispose()


def test_launches_that_begin_one_new_study_at_once_all_open_it(postgres_url: str):
    """Tables, Optuna's tables and the study: each is made by one of them, and found by the others."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    launches = [
        subprocess.Popen([sys.executable, "-c", LAUNCH, postgres_url], text=True, cwd=ROOT, **pipes) for _ in range(3)
    ]
    for one in launches:
        assert one.stdout is not None
        assert one.stdout.readline() == "ready\n"
    said = []
    for one in launches:
        assert one.stdin is not None
        one.stdin.write("\n")
        one.stdin.flush()
    for one in launches:
        out, err = one.communicate(timeout=120)
        assert one.returncode == 0, err
        said.append(out.strip())
    engine = open_for_reading(postgres_url)
    (study,) = reader.list_studies(engine)
    engine.dispose()
    assert said == [str(study.id)] * 3
