"""What PulseWatch costs and carries: `python -m tests.bench`, or `make bench`. docs/performance.md shows its tables."""
