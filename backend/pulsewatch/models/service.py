"""What PulseWatch keeps of itself."""

from sqlalchemy import CheckConstraint, Column, PrimaryKeyConstraint, Table, Text

from pulsewatch.db import metadata
from pulsewatch.models.types import Timestamp

worker_heartbeat = Table(
    "worker_heartbeat",
    metadata,
    Column("worker_id", Text, nullable=False, comment="Host and process of the worker."),
    Column("started_at", Timestamp, nullable=False, comment="When it started."),
    Column("beat_at", Timestamp, nullable=False, comment="Its last sign of life."),
    PrimaryKeyConstraint("worker_id"),
    comment="One row per worker process; /ready looks at the newest.",
)

analytics_object = Table(
    "analytics_object",
    metadata,
    Column("name", Text, nullable=False, comment="Its name in the schema analytics."),
    Column("kind", Text, nullable=False, comment="view or function."),
    Column("file", Text, nullable=False, comment="The file that defines it; files sort in load order."),
    PrimaryKeyConstraint("name"),
    CheckConstraint("kind in ('view', 'function')", name="kind"),
    comment="The objects of the schema analytics that migrate made and may replace; all others are the user's own.",
)
