"""A latency table in lines. Nothing here needs torch."""

from igq.costs import Operator, Profile


def latency_lines(profile: Profile) -> list[str]:
    """Return a line for each operator, from its fastest setting to its slowest, and the rest."""
    lines = [f"{profile.model} on {profile.target} ({profile.machine}), one image:"]
    lines += [_line(operator) for operator in profile.operators if operator.timings]
    missing = [operator for operator in profile.operators if not operator.timings]
    lines += [f"  {operator.kind} of {operator.layers[0]}: not run" for operator in missing]
    return [*lines, f"  all else: {profile.rest_ms:.3f} ms"]


def _line(operator: Operator) -> str:
    ordered = sorted(operator.timings.items(), key=lambda entry: entry[1].median_ms)
    (fast, least), (slow, most) = ordered[0], ordered[-1]
    tokens, channels, outputs = operator.shape
    name = f"  {operator.kind} {tokens} x {channels} x {outputs}, {len(operator.layers)} layers"
    spread = max(timing.spread_ms for timing in operator.timings.values())
    if fast == slow:
        return f"{name}: {least.median_ms:.3f} ms ({fast}), spread {spread:.3f}"
    return (
        f"{name}: {least.median_ms:.3f} ms ({fast}) to {most.median_ms:.3f} ms ({slow}), "
        f"spread {spread:.3f}"
    )
