"""The network: a multilayer perceptron in PyTorch, and what is served of it.

It is served as scikit-learn's classifier of the same weights, since a perceptron is the same function in both: the
runtime verifies and loads that format, and an answer waits for no PyTorch.
"""

from itertools import pairwise

import pandas as pd
import torch
from dataset import MAX_INK
from sklearn.neural_network import MLPClassifier
from torch import Tensor, nn


def build(inputs: int, classes: int, *, width: int, depth: int, dropout: float) -> nn.Sequential:
    """`depth` hidden layers of `width` units each; gives logits."""
    layers: list[nn.Module] = []
    for size, following in pairwise([inputs, *[width] * depth]):
        layers += [nn.Linear(size, following), nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers, nn.Linear(width, classes))


def inputs(rows: pd.DataFrame) -> Tensor:
    """What the network takes: float32, (n_rows, n_pixels), 0 to 1."""
    return torch.tensor(rows.to_numpy() / MAX_INK, dtype=torch.float32)


def as_classifier(network: nn.Sequential, rows: pd.DataFrame, digits: "pd.Series[int]") -> MLPClassifier:
    """The network as scikit-learn's classifier of raw rows.

    Args:
        rows, digits: name the inputs and the classes; the weights do not come from them.
    """
    linear = [layer for layer in network if isinstance(layer, nn.Linear)]
    classifier = MLPClassifier([layer.out_features for layer in linear[:-1]], random_state=0)
    classifier.partial_fit(rows, digits, classes=sorted(digits.unique()))  # one step, to make its attributes
    del classifier._optimizer  # of that one step
    classifier.coefs_ = [layer.weight.detach().cpu().double().T.numpy() for layer in linear]
    classifier.intercepts_ = [layer.bias.detach().cpu().double().numpy() for layer in linear]
    classifier.coefs_[0] = classifier.coefs_[0] / MAX_INK  # `inputs`, folded into the first layer
    return classifier
