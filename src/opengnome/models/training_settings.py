"""How a network is trained."""

from typing import Literal

from pydantic import Field

from opengnome.settings import Settings


class TrainingSettings(Settings):
    """How a member is trained (AdamW)."""

    epochs: int = Field(default=45, ge=1)
    """Passes over the training crystals; the paper has 1,000."""
    batch_size: int = Field(default=32, ge=1)
    """Crystals per step; the paper has 256."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Largest learning rate; the paper has 5.55e-4."""
    schedule: Literal["one_cycle", "linear", "constant", "plateau"] = "one_cycle"
    """One cycle: a linear rise over `warm_up` of the steps and a cosine to zero. Linear decay to zero (the
    paper). Plateau: times 0.8 after `plateau_epochs` without a better held-out error."""
    warm_up: float = Field(default=0.05, ge=0, lt=1)
    """Share of the steps over which one cycle rises."""
    plateau_epochs: int = Field(default=5, ge=1)
    """Patience of the plateau schedule."""
    weight_decay: float = Field(default=0.02, ge=0)
    """Decoupled weight decay (AdamW) of matrices."""
    loss: Literal["l1", "huber", "mse", "laplace"] = "l1"
    """Loss on standardised targets; huber turns from square to linear at 0.1; laplace is the likelihood of a
    network that also predicts its scale."""
    max_gradient_norm: float = Field(default=1.0, gt=0)
    """Gradients longer than this are shortened to it."""
    averaging: float = Field(default=0.0, ge=0, lt=1)
    """Decay of an exponential average of the weights, which is what is kept; 0 keeps the last weights."""
    volume_noise: float = Field(default=0.0, ge=0)
    """Standard deviation of a random factor on the volume of each crystal at each step (0.05 is 5 %). The energy stays
    that of the relaxed crystal: the network learns to see it in crystals that are not relaxed."""
    distance_noise: float = Field(default=0.0, ge=0)
    """The same for every distance."""
    patience: int = Field(default=0, ge=0)
    """Stop after this many epochs without a better held-out error and keep the best weights; 0 never stops."""
    bfloat16: bool | None = None
    """Matrix products in bfloat16; by default where the processor has instructions for it (several times
    faster, 1 % less exact)."""
    device: str = "auto"
    """`cpu`, `cuda`, or `auto`: the graphics card when there is one."""
    threads: int = Field(default=1, ge=1)
    """Threads of one training on a processor; more than one gives up reproducibility."""
    save_every: float = Field(default=300.0, gt=0)
    """Seconds between saved states; a killed training goes on from the last one, to the same weights."""


COMPOSITIONAL_TRAINING = TrainingSettings(
    epochs=48, batch_size=256, learning_rate=2e-3, warm_up=0.1, weight_decay=0.1, averaging=0.998, loss="laplace"
)
"""Defaults of a compositional training."""
