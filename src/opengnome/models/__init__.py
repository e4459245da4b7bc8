"""Crystal -> predicted formation energy with uncertainty."""

from opengnome.models.calibration import Calibration
from opengnome.models.compositional import CompositionalModel, CompositionalSettings
from opengnome.models.compositional_ensemble import CompositionalEnsemble, assemble_compositional
from opengnome.models.domain import Domain
from opengnome.models.ensemble import Ensemble, assemble_ensemble
from opengnome.models.examples import formation_energy_targets
from opengnome.models.network import AnyModelSettings, ModelSettings, StructuralModel, make_network
from opengnome.models.paper import PaperNetwork, PaperSettings
from opengnome.models.prediction import Prediction
from opengnome.models.scan import VOLUME_SCALES
from opengnome.models.shipped import SHIPPED, shipped_ensemble
from opengnome.models.structural import StructuralNetwork, StructuralSettings
from opengnome.models.training import MemberReport, train_compositional_member, train_member
from opengnome.models.training_settings import COMPOSITIONAL_TRAINING, TrainingSettings

__all__ = [
    "COMPOSITIONAL_TRAINING",
    "SHIPPED",
    "VOLUME_SCALES",
    "AnyModelSettings",
    "Calibration",
    "CompositionalEnsemble",
    "CompositionalModel",
    "CompositionalSettings",
    "Domain",
    "Ensemble",
    "MemberReport",
    "ModelSettings",
    "PaperNetwork",
    "PaperSettings",
    "Prediction",
    "StructuralModel",
    "StructuralNetwork",
    "StructuralSettings",
    "TrainingSettings",
    "assemble_compositional",
    "assemble_ensemble",
    "formation_energy_targets",
    "make_network",
    "shipped_ensemble",
    "train_compositional_member",
    "train_member",
]
