"""Limits of the temperature of a network, for trainings and reports."""

# Limits of a temperature: a network that is always right, or no better than chance, has no best one.
LOWEST, HIGHEST = 0.05, 20.0


def limit_text(temperature: float) -> str:
    """What a temperature at its limit means for confidence, as a clause; empty for others."""
    if temperature >= HIGHEST:
        return "the highest that is allowed, so confidence may still be too high"
    if temperature <= LOWEST:
        return "the lowest that is allowed, so confidence may still be too low"
    return ""
