from .child import QUICK as QUICK
from .child import Effort as Effort
from .report import as_text as as_text
from .suite import benchmark as benchmark
