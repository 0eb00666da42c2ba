"""A scikit-learn estimator, in skops: data, and the names of types. Only types of our own list are made."""

from modelyard_serving.errors import Refused
from modelyard_serving.runtime.kinds import archive
from modelyard_serving.runtime.kinds.ask import Ask, methods_of

FILE = "model.skops"
MAX_BYTES = 4 * 2**30

# skops loads NumPy, SciPy and scikit-learn estimators by itself. These compiled types it leaves to us: they
# hold arrays and no code. Our own list; never the one a model brings along.
TRUSTED_TYPES = (
    "sklearn._loss._loss.CyHalfBinomialLoss",
    "sklearn._loss._loss.CyHalfMultinomialLoss",
    "sklearn._loss._loss.CyHalfSquaredError",
    "sklearn._loss.link.HalfLogitLink",
    "sklearn._loss.link.IdentityLink",
    "sklearn._loss.link.Interval",
    "sklearn._loss.link.LogitLink",
    "sklearn._loss.link.MultinomialLogit",
    "sklearn._loss.loss.HalfBinomialLoss",
    "sklearn._loss.loss.HalfMultinomialLoss",
    "sklearn._loss.loss.HalfSquaredError",
    "sklearn.ensemble._hist_gradient_boosting.binning._BinMapper",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.tree._tree.Tree",
)


def load(content: bytes) -> Ask:
    """The estimator in a skops file.

    Raises:
        Refused: it would unpack to too much, or holds types that are neither skops' nor ours.
    """
    import skops.io

    archive.check(content)
    untrusted = sorted(set(skops.io.get_untrusted_types(data=content)) - set(TRUSTED_TYPES))
    if untrusted:
        raise Refused(f"it holds types that are not trusted: {', '.join(untrusted)}")
    return methods_of(skops.io.loads(content, trusted=list(TRUSTED_TYPES)))
