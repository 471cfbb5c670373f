from .building import MODELS as MODELS
from .building import Model as Model
from .building import build as build
from .building import n_parameters as n_parameters
from .ensemble import Ensemble as Ensemble
