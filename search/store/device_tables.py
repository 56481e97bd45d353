"""The tables of the measuring devices: who they are, what they were asked for and everything they answered.

A job is one model to be measured by one queue of alike devices. Its attempts are leases; an attempt ends with at most
one result. Results and events are only ever appended. Times are UTC seconds since 1970, documents are JSON text.
"""

from __future__ import annotations

import sqlalchemy as sa

from search.store.tables import metadata, word_of
from search.store.vocabulary import JobState, LeaseActivity, LeaseOutcome, MeasurementMode, Verdict

device = sa.Table(
    "condensery_device",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.String(100), nullable=False, unique=True),
    sa.Column("queue", sa.String(100), nullable=False),
    sa.Column("profile", sa.String(1000)),  # a virtual device's: turns its counts into milliseconds
    sa.Column("token_hash", sa.String(64), nullable=False, unique=True),  # SHA-256; the token itself is kept nowhere
    sa.Column("added_at", sa.Float, nullable=False),
    sa.Column("revoked_at", sa.Float),
    sa.Column("instance", sa.String(32)),  # the agent that serves it, None once it left
    sa.Column("facts", sa.Text),  # JSON, as the agent enrolled with them
    sa.Column("conditions", sa.Text),  # JSON, the newest reading of its sensors
    sa.Column("enrolled_at", sa.Float),
    sa.Column("last_seen_at", sa.Float),
)
sa.Index("condensery_device_queue", device.c.queue)

model = sa.Table(  # what devices fetch, kept while an open job needs it
    "condensery_device_model",
    metadata,
    sa.Column("sha256", sa.String(64), primary_key=True),
    sa.Column("size", sa.Integer, nullable=False),
    sa.Column("content", sa.LargeBinary, nullable=False),
    sa.Column("stored_at", sa.Float, nullable=False),
)

job = sa.Table(
    "condensery_device_job",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("queue", sa.String(100), nullable=False),
    sa.Column("identity", sa.String(64), nullable=False),  # hash of what is to be measured: equal for equal requests
    sa.Column("open_identity", sa.String(64), unique=True),  # the same while the job is open, then NULL
    sa.Column("model_sha256", sa.String(64), nullable=False),
    sa.Column("anchor_sha256", sa.String(64)),
    sa.Column("mode", word_of(MeasurementMode), nullable=False),
    sa.Column("runtime", sa.String(40), nullable=False),
    sa.Column("threads", sa.Integer, nullable=False),
    sa.Column("precision", sa.String(12), nullable=False),
    sa.Column("policy", sa.Text, nullable=False),  # JSON, every field
    sa.Column("policy_label", sa.String(12), nullable=False),
    sa.Column("batch", sa.String(64), nullable=False),  # hash of what the jobs of one lease must share
    sa.Column("priority", sa.Integer, nullable=False),  # smaller goes first
    sa.Column("macs", sa.BigInteger),
    sa.Column("state", word_of(JobState), nullable=False),
    sa.Column("reason", sa.Text),  # why it failed
    sa.Column("attempt", sa.Integer, nullable=False),  # the newest lease's; 0 before the first
    sa.Column("troubles", sa.Integer, nullable=False),  # attempts that a device gave up or never came back from
    sa.Column("quarantines", sa.Integer, nullable=False),  # attempts whose result can't be believed
    sa.Column("runtime_version", sa.String(40)),  # of the accepted result
    sa.Column("submitted_at", sa.Float, nullable=False),
    sa.Column("finished_at", sa.Float),
)
sa.Index("condensery_device_job_next", job.c.queue, job.c.state, job.c.priority, job.c.id)
sa.Index("condensery_device_job_identity", job.c.identity)

request = sa.Table(  # who waits for an open job
    "condensery_device_request",
    metadata,
    sa.Column("job_id", sa.ForeignKey("condensery_device_job.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("owner", sa.String(32), primary_key=True),  # a unique name that the waiting process chose
    sa.Column("renewed_at", sa.Float, nullable=False),
)

lease = sa.Table(
    "condensery_device_lease",
    metadata,
    sa.Column("job_id", sa.ForeignKey("condensery_device_job.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("attempt", sa.Integer, primary_key=True),
    sa.Column("device_id", sa.ForeignKey("condensery_device.id"), nullable=False),
    sa.Column("instance", sa.String(32), nullable=False),
    sa.Column("leased_at", sa.Float, nullable=False),
    sa.Column("heartbeat_at", sa.Float, nullable=False),
    sa.Column("doing", word_of(LeaseActivity), nullable=False),
    sa.Column("outcome", word_of(LeaseOutcome)),  # NULL while it holds
)
sa.Index("condensery_device_lease_device", lease.c.device_id, lease.c.outcome)

result = sa.Table(  # append-only
    "condensery_device_result",
    metadata,
    sa.Column("job_id", sa.Integer, primary_key=True),
    sa.Column("attempt", sa.Integer, primary_key=True),
    sa.Column("device_id", sa.ForeignKey("condensery_device.id"), nullable=False),
    sa.Column("verdict", word_of(Verdict), nullable=False),
    sa.Column("reason", sa.Text),  # why it is in quarantine
    sa.Column("report", sa.Text, nullable=False),  # JSON; numbers that JSON can't hold are strings
    sa.Column("anchor_ms", sa.Float),  # median over its processes
    sa.Column("received_at", sa.Float, nullable=False),
    sa.ForeignKeyConstraint(
        ["job_id", "attempt"], ["condensery_device_lease.job_id", "condensery_device_lease.attempt"], ondelete="CASCADE"
    ),
)
sa.Index("condensery_device_result_device", result.c.device_id, result.c.verdict)

event = sa.Table(  # append-only
    "condensery_device_event",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("job_id", sa.ForeignKey("condensery_device_job.id", ondelete="CASCADE"), nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("device_id", sa.Integer),  # None for what no device did
    sa.Column("kind", sa.String(20), nullable=False),
    sa.Column("detail", sa.Text),
    sa.Column("at", sa.Float, nullable=False),
)
sa.Index("condensery_device_event_job", event.c.job_id)
