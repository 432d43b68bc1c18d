"""NumPy's and dask.array's namespace, lazily, on blocks: `import nums_core.array as np` (or `as da`)."""

from nums_core.array import linalg as linalg
from nums_core.array import random as random
from nums_core.array.array import Array as Array
from nums_core.array.array import asarray as asarray
from nums_core.array.array import from_array as from_array
from nums_core.array.assignment import *  # noqa: F403
from nums_core.array.blocks import *  # noqa: F403
from nums_core.array.computing import compute as compute
from nums_core.array.computing import explain as explain
from nums_core.array.computing import jit as jit
from nums_core.array.computing import last_report as last_report
from nums_core.array.computing import persist as persist
from nums_core.array.contractions import *  # noqa: F403
from nums_core.array.creation import *  # noqa: F403
from nums_core.array.diagonals import *  # noqa: F403
from nums_core.array.elementwise import *  # noqa: F403
from nums_core.array.histograms import *  # noqa: F403
from nums_core.array.indexing import *  # noqa: F403
from nums_core.array.joining import *  # noqa: F403
from nums_core.array.manipulation import *  # noqa: F403
from nums_core.array.overlap import *  # noqa: F403
from nums_core.array.padding import *  # noqa: F403
from nums_core.array.products import *  # noqa: F403
from nums_core.array.quantiles import *  # noqa: F403
from nums_core.array.reductions import *  # noqa: F403
from nums_core.array.scans import *  # noqa: F403
from nums_core.array.searching import *  # noqa: F403
from nums_core.array.sets import *  # noqa: F403
from nums_core.array.sorting import *  # noqa: F403
from nums_core.array.statistics import *  # noqa: F403
