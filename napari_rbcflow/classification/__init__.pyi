from .dataset import choose_split as choose_split
from .two_stage import TwoStage as TwoStage
