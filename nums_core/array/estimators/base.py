"""What every estimator has: parameters by name, scikit-learn's tags, and errors that its users catch.

Nothing of scikit-learn is inherited or needed. Its own functions ask an estimator for tags, which imports it; and where
it is loaded, errors and warnings are also of its classes.
"""

from __future__ import annotations

import functools
import inspect
import sys
import warnings
from typing import Any, ClassVar

from nums_core.array.estimators import parameters


class NotFittedError(ValueError, AttributeError):
    """A method that needs `fit` was called before it."""


class ConvergenceWarning(UserWarning):
    """A solver stopped before it reached its tolerance."""


class DataConversionWarning(UserWarning):
    """Data were taken in another form than they were given in."""


def of_sklearn(own: type) -> type:
    """scikit-learn's exception of the same name where it is loaded, else `own`."""
    return getattr(sys.modules.get("sklearn.exceptions"), own.__name__, own)


@functools.lru_cache
def _both(own: type, theirs: type) -> type:
    return own if theirs is own else type(own.__name__, (own, theirs), {"__module__": own.__module__})


def warn(category: type[Warning], text: str) -> None:
    """Warn at the user's line."""
    warnings.warn(text, of_sklearn(category), stacklevel=4)


class Estimator:
    """Parameters by name, as scikit-learn's `BaseEstimator` has them: the constructor's arguments are attributes.

    Subclasses say in `_kind` what they are, in `_rules` what their parameters may be, and in `_targets` what `y` may be.
    """

    _kind: ClassVar[str | None] = None
    _rules: ClassVar[dict[str, parameters.Rule]] = {}
    _targets: ClassVar[dict[str, bool]] = {"required": False}

    @classmethod
    def _names(cls) -> list[str]:
        return [p for p in inspect.signature(cls.__init__).parameters if p != "self"]

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Parameters with their values. `deep` changes nothing: no estimator here holds another."""
        return {name: getattr(self, name) for name in self._names()}

    def set_params(self, **params: Any) -> Any:
        """Change parameters; they are checked by `fit`.

        Raises
        ------
        ValueError
            A name that is no parameter.
        """
        valid = self._names()
        for name, value in params.items():
            if name not in valid:
                raise ValueError(f"{type(self).__name__} has no parameter {name!r}; it has {', '.join(valid)}")
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.get_params().items())})"

    def __sklearn_is_fitted__(self) -> bool:
        return any(name.endswith("_") and not name.startswith("_") for name in vars(self))

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn asks of an estimator before it uses it (only scikit-learn calls this)."""
        from sklearn.utils import ClassifierTags, RegressorTags, Tags, TargetTags, TransformerTags

        return Tags(
            estimator_type=self._kind, target_tags=TargetTags(**self._targets),
            transformer_tags=TransformerTags(["float64", "float32"]) if hasattr(self, "transform") else None,
            classifier_tags=ClassifierTags() if self._kind == "classifier" else None,
            regressor_tags=RegressorTags() if self._kind == "regressor" else None)

    def _check_params(self) -> None:
        parameters.check(self, self._rules)

    def _check_fitted(self) -> None:
        if not self.__sklearn_is_fitted__():
            raise _both(NotFittedError, of_sklearn(NotFittedError))(
                f"This {type(self).__name__} instance is not fitted yet; call fit() with data first")
