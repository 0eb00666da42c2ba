"""Train the digits model: `python train.py`, or `python train.py with lr=0.01 width=128`.

`loop.py` trains and knows nothing of runs. This file reports each epoch to the run, and to the sweep if there is one,
which may stop it there, and hands the loop a checkpoint to go on from.
"""

import dataset
import loop
import network
import torch
from sklearn.metrics import accuracy_score

from modelyard import Experiment

ex = Experiment("digits")

OPTIMISERS = {
    "adam": lambda weights, lr, decay, _: torch.optim.AdamW(weights, lr=lr, weight_decay=decay),
    "sgd": lambda weights, lr, decay, momentum: torch.optim.SGD(weights, lr=lr, weight_decay=decay, momentum=momentum),
}


@ex.config
def config():
    lr = 0.005  # learning rate
    width = 64  # units of a hidden layer
    depth = 1  # hidden layers
    dropout = 0.1  # fraction of units left out in training
    batch = 32  # rows of one step
    weight_decay = 1e-4
    optimiser = {"name": "adam", "momentum": 0.9}  # adam or sgd; the momentum is sgd's
    epochs = 20


@ex.holdout
def holdout(classifier):
    x, y = features(ex.dataset("holdout", dataset.load().holdout))
    read = classifier.predict(x)
    ex.evaluation("holdout", truth=y, prediction=read, slices=y.to_frame())
    return accuracy_score(y, read)


@ex.automain
def train(_run, lr, width, depth, dropout, batch, weight_decay, optimiser, epochs, seed):
    split = dataset.load()
    ex.dataset("train", split.train)
    ex.dataset("validation", split.validation)
    loop.make_deterministic()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    _run.info["device"] = str(device)
    x, y = features(split.train)
    x_val, y_val = features(split.validation)
    rows, val_rows = as_rows(x, y, device), as_rows(x_val, y_val, device)

    loop.seeded(seed, 0)
    net = network.build(x.shape[1], y.nunique(), width=int(width), depth=int(depth), dropout=dropout).to(device)
    make = OPTIMISERS[optimiser["name"]]
    steps = make(net.parameters(), lr, weight_decay, optimiser.get("momentum", 0.0))

    def report(epoch, folder):
        _run.log_scalar("train_loss", epoch.train_loss, epoch.number)
        _run.log_scalar("val_loss", epoch.val_loss, epoch.number)
        ex.report(epoch.number, epoch.val_accuracy, checkpoint=folder)

    plan = {"epochs": int(epochs), "batch": int(batch), "seed": seed}
    loop.fit(net, steps, rows, val_rows, **plan, report=report, checkpoint=ex.checkpoint())

    val_loss, val_accuracy = loop.evaluate(net, val_rows)
    classifier = network.Classifier(net, y)
    graph = network.as_graph(classifier, x.shape[1])
    ex.save_model(graph, examples=x_val.head(32), trained=classifier)
    ex.hand_over(classifier)
    print(f"val_accuracy {val_accuracy:.4f}, val_loss {val_loss:.4f}, on {device}")
    return {"val_accuracy": val_accuracy, "val_loss": val_loss}


def features(frame):
    return frame.drop(columns="digit"), frame["digit"]


def as_rows(x, y, device):
    return loop.Rows(network.inputs(x).to(device), torch.tensor(y.to_numpy()).to(device))
