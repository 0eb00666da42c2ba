"""Train the tumor model: `python train.py`, or `python train.py with C=0.1 scaler=robust`.

A plain Sacred experiment. `yard train tumor` runs the same file, and `yard sweep tumor` runs it once per trial.
"""

import dataset
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import RobustScaler, StandardScaler

from modelyard import Experiment

ex = Experiment("tumor")

SCALERS = {"standard": StandardScaler, "robust": RobustScaler}


@ex.config
def config():
    C = 0.01  # inverse strength of the regularisation
    components = 6  # principal components kept, 1 to 30
    scaler = "standard"  # standard or robust


def score(model, x, y):
    """The project's metric: the area under the ROC curve."""
    return float(roc_auc_score(y == "malignant", model.predict_proba(x)[:, malignant(model)]))


def malignant(model):
    return list(model.classes_).index("malignant")


@ex.holdout
def holdout(model):
    """On rows that no trial saw; answer by answer, so that two models can be compared on them."""
    rows = ex.dataset("holdout", dataset.load().holdout)
    x, y = rows.drop(columns="diagnosis"), rows["diagnosis"]
    probability = model.predict_proba(x)[:, malignant(model)]
    slices = dataset.slices(rows)
    ex.evaluation("holdout", truth=y, prediction=probability, positive="malignant", slices=slices)
    return score(model, x, y)


@ex.automain
def train(_run, C, components, scaler, seed):
    split = dataset.load()
    ex.dataset("train", split.train)
    ex.dataset("validation", split.validation)
    x, y = split.train.drop(columns="diagnosis"), split.train["diagnosis"]
    x_val, y_val = split.validation.drop(columns="diagnosis"), split.validation["diagnosis"]

    model = make_pipeline(
        SCALERS[scaler](),
        PCA(n_components=int(components), random_state=seed),
        LogisticRegression(C=C, max_iter=1000, random_state=seed),
    )
    model.fit(x, y)

    probability = model.predict_proba(x_val)[:, malignant(model)]
    scores = {
        "val_auc": score(model, x_val, y_val),
        "val_accuracy": float(accuracy_score(y_val, model.predict(x_val))),
        "val_log_loss": float(log_loss(y_val == "malignant", probability)),
    }
    for name, value in scores.items():
        _run.log_scalar(name, value)
    ex.save_model(model, examples=x_val.head(32))
    ex.hand_over(model)
    print(", ".join(f"{name} {value:.4f}" for name, value in scores.items()))
    return scores
