"""The loop: epochs of training that can be stopped after any epoch and gone on with elsewhere.

An epoch's randomness, the order of the rows and the dropout, follows from the seed and the epoch's number. So a
checkpoint holds weights, optimiser and number, and training that goes on from it gives the same numbers as training
that was never interrupted. Knows nothing of Modelyard.

The same seed gives the same numbers on a CPU, however many threads it has, and on a GPU of the same model, with the
same PyTorch (an operation that is not deterministic there would raise). What is not the same: a CPU's numbers and a
GPU's, two models of GPU, two kinds of processor. They add up in another order, so the last digits differ, and after
some epochs an accuracy may.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

STATE = "state.pt"  # the file in a checkpoint's folder


@dataclass(frozen=True, slots=True)
class Rows:
    """Inputs, float32 (n, inputs), and their classes, int64 (n,), on one device."""

    inputs: Tensor
    classes: Tensor


@dataclass(frozen=True, slots=True)
class Epoch:
    """What an epoch, counted from 1, came to; losses are means of the cross entropy, in nats."""

    number: int
    train_loss: float
    val_loss: float
    val_accuracy: float


def make_deterministic() -> None:
    """Have the same seed give the same numbers: see above. Before the first use of a GPU."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it as it starts
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(1)  # several add up in another order: trials have one each, a plain run has all


def seeded(seed: int, epoch: int) -> None:
    """Seed PyTorch for an epoch; epoch 0 is the making of the network."""
    # Mixed and not added: else one seed's epochs would be the next seed's, one later.
    torch.manual_seed(int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0] >> 1))


def fit(
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    train: Rows,
    validation: Rows,
    *,
    epochs: int,
    batch: int,
    seed: int,
    report: Callable[[Epoch, Path], None],
    checkpoint: Path | None = None,
) -> None:
    """Train `network` in place, up to `epochs` in all.

    Args:
        report: called after each epoch with a folder that holds all that training needs to go on. The folder is gone
            once it returns; it may stop training by raising.
        checkpoint: such a folder, to go on from.
    """
    done = _load(checkpoint, network, optimiser) if checkpoint else 0
    for number in range(done + 1, epochs + 1):
        seeded(seed, number)
        train_loss = _train(network, optimiser, train, batch)
        epoch = Epoch(number, train_loss, *evaluate(network, validation))
        with TemporaryDirectory() as folder:
            torch.save(
                {"epoch": number, "network": network.state_dict(), "optimiser": optimiser.state_dict()},
                Path(folder) / STATE,
            )
            report(epoch, Path(folder))


@torch.no_grad()
def evaluate(network: nn.Module, rows: Rows) -> tuple[float, float]:
    """Mean cross entropy, and the fraction of the rows that are classified rightly."""
    network.eval()
    logits = network(rows.inputs)
    right = int((logits.argmax(1) == rows.classes).sum())
    return float(cross_entropy(logits, rows.classes)), right / len(rows.classes)


def _train(network: nn.Module, optimiser: torch.optim.Optimizer, rows: Rows, batch: int) -> float:
    network.train()
    total = torch.zeros((), device=rows.inputs.device)  # kept there: asking for it at each step would wait for the GPU
    order = torch.randperm(len(rows.classes)).to(rows.inputs.device)  # drawn on the CPU: the same rows on any device
    for chosen in order.split(batch):
        optimiser.zero_grad()
        loss = cross_entropy(network(rows.inputs[chosen]), rows.classes[chosen])
        loss.backward()
        optimiser.step()
        total += loss.detach() * len(chosen)
    return float(total) / len(rows.classes)


def _load(folder: Path, network: nn.Module, optimiser: torch.optim.Optimizer) -> int:
    """Take the state in; gives the number of epochs it has seen."""
    # weights_only: a checkpoint may come from shared storage, and a pickle could run code.
    state = torch.load(folder / STATE, weights_only=True, map_location="cpu")
    network.load_state_dict(state["network"])
    optimiser.load_state_dict(state["optimiser"])
    for group in optimiser.param_groups:
        # Population based training goes on from another trial's checkpoint with a learning rate of its own.
        group.update(optimiser.defaults)
    return int(state["epoch"])
