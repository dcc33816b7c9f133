"""Types of columns that all tables share."""

from sqlalchemy import DateTime

Timestamp = DateTime(timezone=True)
