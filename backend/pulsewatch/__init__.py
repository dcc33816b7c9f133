"""PulseWatch: run history for pipelines, scheduled jobs and checks, kept in your own PostgreSQL."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("pulsewatch")
except PackageNotFoundError:  # a checkout that was never installed
    __version__ = "0.0.0"
