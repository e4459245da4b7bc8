"""Crystal -> predicted formation energy with uncertainty."""

from opengnome.models.calibration import Calibration
from opengnome.models.ensemble import Ensemble, assemble_ensemble
from opengnome.models.examples import formation_energy_targets
from opengnome.models.prediction import Prediction
from opengnome.models.scan import VOLUME_SCALES
from opengnome.models.structural import ModelSettings, StructuralModel
from opengnome.models.training import MemberReport, TrainingSettings, train_member

__all__ = [
    "VOLUME_SCALES",
    "Calibration",
    "Ensemble",
    "MemberReport",
    "ModelSettings",
    "Prediction",
    "StructuralModel",
    "TrainingSettings",
    "assemble_ensemble",
    "formation_energy_targets",
    "train_member",
]
