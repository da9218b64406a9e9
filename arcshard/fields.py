"""Marks on fields of a configuration: what may differ when a run continues. Any other change makes it another run."""

RUNTIME = {"may_change": "always"}
"""Where things lie and what the run computes on, not what it learns: field(default=…, metadata=RUNTIME)."""
WITH_DATA = {"may_change": "with --allow-changed-data"}
