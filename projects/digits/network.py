"""The network: a multilayer perceptron in PyTorch, and what is served of it.

Served is an ONNX graph. PyTorch's own files hold weights and name classes, so whoever loads one runs this file; a graph
is operators and numbers, and an answer waits for no PyTorch. It takes raw rows: the scaling is a part of it.
"""

import logging
import warnings
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import torch
from dataset import MAX_INK
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


class Classifier(nn.Module):
    """The network as it is asked: raw rows in, the digit and the probability of each out."""

    def __init__(self, network: nn.Sequential, digits: "pd.Series[int]") -> None:
        super().__init__()
        self.network = network
        self.classes_ = np.array(sorted(digits.unique()))
        self.register_buffer("digits", torch.tensor(self.classes_))

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        probabilities = self.network(pixels / MAX_INK).softmax(1)
        return self.digits[probabilities.argmax(1)], probabilities

    def predict(self, rows: pd.DataFrame) -> np.ndarray:
        return self._asked(rows)[0]

    def predict_proba(self, rows: pd.DataFrame) -> np.ndarray:
        return self._asked(rows)[1]

    @torch.no_grad()
    def _asked(self, rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        pixels = torch.tensor(rows.to_numpy("float32"), device=self.digits.device)
        digits, probabilities = self.eval()(pixels)
        return digits.cpu().numpy(), probabilities.cpu().numpy()


def as_graph(classifier: Classifier, pixels: int) -> Any:
    """The classifier as an ONNX model whose outputs are called after the methods."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it would tell of the parts of torchvision it lacks
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of PyTorch's own deprecations
        return torch.onnx.export(
            classifier.eval().cpu(),
            (torch.zeros(2, pixels),),
            input_names=["pixels"],
            output_names=["predict", "predict_proba"],
            dynamic_shapes=({0: torch.export.Dim("rows")},),
            dynamo=True,
            verbose=False,
        )
