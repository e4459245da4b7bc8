"""Learning rates."""

import math

from opengnome.models.training_settings import TrainingSettings

PLATEAU_FACTOR = 0.8


def learning_rate(step: int, n_steps: int, training: TrainingSettings, *, drops: int = 0) -> float:
    """Learning rate of a step counted from zero; `drops` is how often a plateau was met."""
    done = step / n_steps
    if training.schedule == "constant":
        return training.learning_rate
    if training.schedule == "plateau":
        return training.learning_rate * PLATEAU_FACTOR**drops
    if training.schedule == "linear":
        return training.learning_rate * (1.0 - done)
    warm_up = max(1, round(n_steps * training.warm_up))
    if step < warm_up:
        return training.learning_rate * (step + 1) / warm_up
    return training.learning_rate * 0.5 * (1.0 + math.cos(math.pi * (step - warm_up) / max(1, n_steps - warm_up)))
