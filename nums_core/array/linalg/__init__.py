"""`np.linalg`: NumPy's names, with dask's `lu`, `solve_triangular`, `tsqr`, `sfqr` and `svd_compressed` beside them.

All chunks are taken. Large matrices go through blocked algorithms; small ones, and stacks of matrices block by block, through
LAPACK. `numpy.linalg.LinAlgError` is the class of errors; those that depend on values come while a result is computed.
"""

from nums_core.array.linalg.eigen import EighResult as EighResult
from nums_core.array.linalg.eigen import EigResult as EigResult
from nums_core.array.linalg.eigen import eig as eig
from nums_core.array.linalg.eigen import eigh as eigh
from nums_core.array.linalg.eigen import eigvals as eigvals
from nums_core.array.linalg.eigen import eigvalsh as eigvalsh
from nums_core.array.linalg.least_squares import cond as cond
from nums_core.array.linalg.least_squares import lstsq as lstsq
from nums_core.array.linalg.least_squares import matrix_rank as matrix_rank
from nums_core.array.linalg.least_squares import pinv as pinv
from nums_core.array.linalg.norms import matrix_norm as matrix_norm
from nums_core.array.linalg.norms import norm as norm
from nums_core.array.linalg.norms import vector_norm as vector_norm
from nums_core.array.linalg.orthogonal import QRResult as QRResult
from nums_core.array.linalg.orthogonal import SVDResult as SVDResult
from nums_core.array.linalg.orthogonal import compression_level as compression_level
from nums_core.array.linalg.orthogonal import compression_matrix as compression_matrix
from nums_core.array.linalg.orthogonal import qr as qr
from nums_core.array.linalg.orthogonal import sfqr as sfqr
from nums_core.array.linalg.orthogonal import svd as svd
from nums_core.array.linalg.orthogonal import svd_compressed as svd_compressed
from nums_core.array.linalg.orthogonal import svdvals as svdvals
from nums_core.array.linalg.orthogonal import tsqr as tsqr
from nums_core.array.linalg.products import cross as cross
from nums_core.array.linalg.products import diagonal as diagonal
from nums_core.array.linalg.products import matmul as matmul
from nums_core.array.linalg.products import matrix_power as matrix_power
from nums_core.array.linalg.products import matrix_transpose as matrix_transpose
from nums_core.array.linalg.products import multi_dot as multi_dot
from nums_core.array.linalg.products import outer as outer
from nums_core.array.linalg.products import tensordot as tensordot
from nums_core.array.linalg.products import tensorinv as tensorinv
from nums_core.array.linalg.products import tensorsolve as tensorsolve
from nums_core.array.linalg.products import trace as trace
from nums_core.array.linalg.products import vecdot as vecdot
from nums_core.array.linalg.stacks import LinAlgError as LinAlgError
from nums_core.array.linalg.triangular import SlogdetResult as SlogdetResult
from nums_core.array.linalg.triangular import cholesky as cholesky
from nums_core.array.linalg.triangular import det as det
from nums_core.array.linalg.triangular import inv as inv
from nums_core.array.linalg.triangular import lu as lu
from nums_core.array.linalg.triangular import slogdet as slogdet
from nums_core.array.linalg.triangular import solve as solve
from nums_core.array.linalg.triangular import solve_triangular as solve_triangular
