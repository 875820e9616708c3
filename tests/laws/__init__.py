"""The laws that pruning and quantization obey, for any model size, patch grid, schedule, seed and dtype.

`tests/laws/test_laws.py` holds the code to each; `tests/laws/test_planted_faults.py` plants the faults that are
listed here and demands that a law notices each.
"""

from laws import adapter, drawing, inverting, patches, quantizing, rebirth, reentry, transferring, weights  # noqa: F401 (registers the laws)
from laws.core import LAWS
from laws.faults import FAULTS as FAULTS_OF_PRUNING
from laws.faults_of_quantization import FAULTS as FAULTS_OF_QUANTIZATION
from laws.faults_of_transfer import FAULTS as FAULTS_OF_TRANSFER

FAULTS = [*FAULTS_OF_PRUNING, *rebirth.FAULTS, *reentry.FAULTS, *FAULTS_OF_QUANTIZATION, *FAULTS_OF_TRANSFER]

__all__ = ["FAULTS", "LAWS"]
