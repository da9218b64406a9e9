"""Fields of a configuration: marks of what may differ when a run continues, and the check of a value."""

RUNTIME = {"may_change": "always"}
"""Where things lie and what the run computes on, not what it learns: field(default=…, metadata=RUNTIME)."""
WITH_DATA = {"may_change": "with --allow-changed-data"}


def check(fits: bool, name: str, value: object, remedy: str) -> None:
    """Raise ValueError unless the value fits. Ask for what is right (0 < x), not for what is wrong, so that NaN fails.

    remedy: what to do, such as "give a positive number".
    """
    if not fits:
        given = "null" if value is None else f"{value:g}" if isinstance(value, float) else value
        raise ValueError(f"{name} is {given}: {remedy}")
