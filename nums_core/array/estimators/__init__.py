"""Estimators with scikit-learn's API on lazy arrays in blocks.

An estimator is a few *passes*: in each, every row block is read once and turned into a small sum of statistics, and the
sums are added up a fixed tree (`passes.total`). What is left, a system of the size of the features, is solved by the
caller's own process. So data may be larger than memory, a pass is one plan that is made once and replayed, and the same
grid gives the same bits on threads and on clusters.

Arrays are answered with lazy arrays; NumPy arrays, lists and tables with NumPy arrays.
"""

from nums_core.array.estimators.base import ConvergenceWarning as ConvergenceWarning
from nums_core.array.estimators.base import DataConversionWarning as DataConversionWarning
from nums_core.array.estimators.base import Estimator as Estimator
from nums_core.array.estimators.base import NotFittedError as NotFittedError
from nums_core.array.estimators.cp import CP as CP
from nums_core.array.estimators.cp import CPResult as CPResult
from nums_core.array.estimators.cp import cp_als as cp_als
from nums_core.array.estimators.cp import mttkrp as mttkrp
from nums_core.array.estimators.glm import LogisticRegression as LogisticRegression
from nums_core.array.estimators.glm import PoissonRegressor as PoissonRegressor
from nums_core.array.estimators.kmeans import KMeans as KMeans
from nums_core.array.estimators.linear import ElasticNet as ElasticNet
from nums_core.array.estimators.linear import Lasso as Lasso
from nums_core.array.estimators.linear import LinearRegression as LinearRegression
from nums_core.array.estimators.linear import Ridge as Ridge
from nums_core.array.estimators.pca import PCA as PCA

__all__ = ["CP", "PCA", "CPResult", "ConvergenceWarning", "DataConversionWarning", "ElasticNet", "Estimator", "KMeans",
           "Lasso", "LinearRegression", "LogisticRegression", "NotFittedError", "PoissonRegressor", "Ridge", "cp_als",
           "mttkrp"]
