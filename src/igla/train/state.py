"""All that an exact resume needs, saved as safetensors and JSON."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from igla.optim import AdamW, Ema, load_optimizer_tensors, optimizer_tensors
from igla.train.scaling import LossScale

MODEL, OPTIMIZER, EMA, PARTIAL, STATE = (
    "model.safetensors",
    "optimizer.safetensors",
    "ema.safetensors",
    "partial.safetensors",
    "state.json",
)
# Stands after the name of a parameter whose gradient is of some rows only, for their numbers.
ROWS = "/rows"


@dataclass
class TrainState:
    """Where a training stands.

    There is no generator state: dropout is seeded anew from (seed, step, micro-step), and the data
    plan is a function of the step.

    step         optimizer steps done
    micro_step   micro-batches of the current step whose gradients are already summed
    loss_sum     loss of these micro-batches, undivided; likewise loss_count and loss_parts
    scale        of the loss, under fp16
    evaluations  what the validations before this step gave, in order
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    ema: Ema | None
    scale: LossScale
    step: int = 0
    micro_step: int = 0
    loss_sum: float = 0.0
    loss_count: float = 0.0
    loss_parts: dict[str, float] = field(default_factory=dict)
    tokens: int = 0
    evaluations: list[dict[str, Any]] = field(default_factory=list)

    def save(self, folder: Path) -> None:
        """Write everything into an existing folder."""
        self.settle()
        save_file(_whole(_weights(self.model)), folder / MODEL)
        save_file(_whole(optimizer_tensors(self.optimizer)), folder / OPTIMIZER)
        if self.ema is not None:
            save_file(_whole(self.ema.tensors()), folder / EMA)
        if self.micro_step:
            save_file(_whole(self._gradients()), folder / PARTIAL)
        text = json.dumps(self._numbers() | {"scale": asdict(self.scale)}, indent=1)
        (folder / STATE).write_text(text + "\n", encoding="utf-8")

    def load(self, folder: Path) -> None:
        """Take over everything from a folder whose seal has been checked."""
        load_weights(self.model, folder)
        load_optimizer_tensors(self.optimizer, load_file(folder / OPTIMIZER))
        if self.ema is not None:
            self.ema.load_tensors(load_file(folder / EMA))
        numbers = json.loads((folder / STATE).read_text(encoding="utf-8"))
        self.scale = LossScale(**numbers.pop("scale"))
        for name, value in numbers.items():
            setattr(self, name, value)
        if self.micro_step:
            gradients = load_file(folder / PARTIAL)
            for name, parameter in self.model.named_parameters():
                if name + ROWS in gradients:
                    rows, values = gradients[name + ROWS][None], gradients[name]
                    parameter.grad = torch.sparse_coo_tensor(
                        rows, values, parameter.shape, is_coalesced=True, check_invariants=True
                    )
                elif name in gradients:
                    parameter.grad = gradients[name].to(parameter.device)

    def settle(self) -> None:
        """Make the weights what they are at this step: some optimizers put updates off."""
        if isinstance(self.optimizer, AdamW):
            self.optimizer.settle()

    def _gradients(self) -> dict[str, Tensor]:
        tensors: dict[str, Tensor] = {}
        for name, parameter in self.model.named_parameters():
            gradient = parameter.grad
            if gradient is not None and gradient.is_sparse:
                rows = gradient.coalesce()
                tensors |= {name + ROWS: rows.indices()[0], name: rows.values()}
            elif gradient is not None:
                tensors[name] = gradient
        return tensors

    def _numbers(self) -> dict[str, Any]:
        losses = ("loss_sum", "loss_count", "loss_parts")
        names = ("step", "micro_step", *losses, "tokens", "evaluations")
        return {name: getattr(self, name) for name in names}


def load_weights(model: nn.Module, folder: Path, *, averaged: bool = False) -> None:
    """Load the model's weights of a version alone, or their moving average."""
    weights = load_file(folder / MODEL)
    if averaged:
        average = load_file(folder / EMA)
        weights |= {name: average[name] for name in weights if name in average}
    assert weights.keys() == _weights(model).keys(), f"{folder} is of another model"
    model.load_state_dict(weights, strict=False)  # what is shared is there under one name only


def _weights(model: nn.Module) -> dict[str, Tensor]:
    """What a training changes: parameters that are trained and buffers that are kept, each once,
    whatever modules share it."""
    kept = model.state_dict().keys()
    buffers = {name: value for name, value in model.named_buffers() if name in kept}
    trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
    return trained | buffers


def _whole(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
