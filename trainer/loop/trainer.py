"""The training loop of one run: an epoch of steps, an evaluation, and the state between epochs.

Owns the mathematics and nothing else: no files, no signals. `tick` is called after every step and evaluation batch
and may raise to stop. Metrics stay on the device until the epoch ends.
"""

import math
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from trainer.data.augment import Boxes, augment, normalise
from trainer.data.catalog import Dataset
from trainer.data.draws import EpochDraws, draw_epoch
from trainer.data.order import draw_seed
from trainer.loop.device import autocast, choose_memory_format, fix_arithmetic, images_at_once
from trainer.loop.group import Group, Tick, agreed, together
from trainer.loop.optimizer import MOMENTS, FusedAdamW, forget_broken_step
from trainer.loop.step import WORTH_RECORDING, CapturedStep, CudaGraphs, EagerStep, Execution
from trainer.models.build import build_model
from trainer.models.catalog import is_reference
from trainer.models.reference import check_scores
from trainer.models.replicas import in_turn
from trainer.records.recipe import Recipe, replica_batch
from trainer.records.result import History


class DivergedError(Exception):
    """The loss is no longer a number."""


class StateError(Exception):
    """A state that is another network's."""


class Split(NamedTuple):
    """Images (N, 3, S, S) uint8 and labels (N,) int64, on the device the run computes on."""

    images: Tensor
    labels: Tensor

    @classmethod
    def from_arrays(cls, images: npt.NDArray, labels: npt.NDArray, device: torch.device) -> "Split":  # type: ignore[type-arg]
        """Bring arrays to the device; on a CPU they are used as they are."""
        return cls(torch.from_numpy(images).to(device), torch.from_numpy(labels).to(device))


class EpochMetrics(NamedTuple):
    """Means over an epoch: loss in nats, accuracy as a fraction."""

    loss: float
    accuracy: float


class Trainer:
    """One run between epochs: model, optimiser, history. A function of the seed and, on a CPU, the number of threads;
    on a GPU, of its kind.

    seed fixes the initial weights; with the epoch it fixes order, augmentation and dropout. group: the processes that
    share the replicas, each an equal number of them in their order. capture: on a GPU, record the step as a CUDA graph
    where the run is long enough and alone; the result differs by rounding at most.
    """

    def __init__(
        self,
        *,
        architecture: str,
        dataset: Dataset,
        classes: int,
        recipe: Recipe,
        seed: int,
        precision: str,
        train: Split,
        val: Split,
        group: Group | None = None,
        capture: bool = True,
    ) -> None:
        self.dataset = dataset
        self.recipe = recipe
        self.seed = seed
        self.precision = precision
        self.train = train
        self.val = val
        self.device = train.images.device
        self.group = group or Group()
        self.replicas = recipe.replicas // self.group.size
        self.batch, self.steps = replica_batch(len(train.labels), recipe)
        self.classes = classes
        self.built_in = not is_reference(architecture)
        # Another's network may reshape what channels last would make unshapeable.
        self.memory_format = choose_memory_format(self.device, precision) if self.built_in else torch.contiguous_format
        fix_arithmetic(precision)
        self._seed(draw_seed(seed, 0, "weights"))
        mine = recipe.model_copy(update={"replicas": self.replicas})
        model = build_model(architecture, classes, train.images.shape[-1], mine)
        self.model: nn.Module = model.to(self.device).to(memory_format=self.memory_format)  # type: ignore[call-overload]
        self.images_per_pass, self.evaluation_batch = self.batch, recipe.batch_size
        if self.built_in:
            images = self.batch * self.replicas
            self.images_per_pass, self.evaluation_batch = images_at_once(self.model, images, self.device)
        self.optimizer = FusedAdamW(
            ((name, parameter) for name, parameter in self.model.named_parameters() if parameter.requires_grad),
            betas=recipe.betas,
            eps=recipe.epsilon,
            weight_decay=recipe.weight_decay,
        )
        self.scaler = GradScaler(self.device.type, enabled=precision == "fp16")
        # What processes tell each other is not recorded, nor a network that may decide anew in every step.
        recordable = self.group.size == 1 and self.built_in and self.device.type == "cuda"
        captured = capture and recordable and recipe.epochs * self.steps >= WORTH_RECORDING
        # None of these knows the trainer: a cycle would keep the GPU's memory from the next run.
        self.execution: Execution = EagerStep(self.device)
        if captured:
            forget = partial(forget_broken_step, self.optimizer, self.scaler)
            self.execution = CapturedStep(self.device, CudaGraphs(self.device), forget)
        draw = partial(draw_epoch, dataset, len(train.labels), recipe.replicas, self.batch, self.steps, seed)
        self.draws = EpochDraws(draw, recipe.epochs, ahead=self.device.type == "cuda")
        self._loss_sum = torch.zeros((), device=self.device)
        self._correct = torch.zeros((), dtype=torch.int64, device=self.device)
        self.history = History()
        self.train_seconds = 0.0
        self.evaluation_seconds = 0.0

    @property
    def epoch(self) -> int:
        """The number of completed epochs, which is the number of the next one."""
        return self.history.epochs

    def try_evaluation(self) -> None:
        """Evaluate a batch on a GPU, where that takes more memory than a step of ResNet-18: a run that does not fit
        fails before its first epoch, not after it.
        """
        if self.device.type == "cuda":
            images, labels = (part[: self.evaluation_batch] for part in self.val)
            inputs = self._inputs(images)  # whose constants are kept, and must be good for training too
            self.model.eval()
            with torch.inference_mode():
                self._forward(inputs, labels)

    def run_epoch(self, tick: Tick) -> None:
        """Train and evaluate one epoch and append it to the history.

        Raises DivergedError when a loss is not finite; the history then ends before this epoch.
        """
        started = time.perf_counter()
        trained = self._train_epoch(tick)
        between = time.perf_counter()
        evaluated = self._evaluate(tick)
        ended = time.perf_counter()
        for name, metrics in (("training", trained), ("validation", evaluated)):
            if not math.isfinite(metrics.loss):
                raise DivergedError(f"{name} loss is {metrics.loss} in epoch {self.epoch}")
        added = {
            "train_loss": trained.loss,
            "train_accuracy": trained.accuracy,
            "val_loss": evaluated.loss,
            "val_accuracy": evaluated.accuracy,
            "learning_rate": self.recipe.learning_rate_at(self.epoch),
            "epoch_seconds": round(ended - started, 4),
        }
        self.history = History(**{name: [*getattr(self.history, name), value] for name, value in added.items()})
        self.train_seconds += between - started
        self.evaluation_seconds += ended - between

    def state(self) -> dict[str, Tensor]:
        """Every tensor that the next epoch depends on, by name."""
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        for name, state in self.optimizer.state.items():
            tensors |= {f"optimizer.{name}.{key}": value for key, value in state.items()}
        return tensors

    def scaler_state(self) -> dict[str, int | float]:
        """The state of fp16's loss scale, empty in other formats."""
        return dict(self.scaler.state_dict())

    def restore(
        self,
        tensors: Mapping[str, Tensor],
        history: History,
        *,
        train_seconds: float,
        evaluation_seconds: float,
        scaler: dict[str, int | float],
    ) -> None:
        """Continue from what `state` gave. Raises StateError, with nothing changed, when the tensors do not fit."""
        self._refuse_other(tensors)
        self.model.load_state_dict({name: tensors[f"model.{name}"] for name in self.model.state_dict()})
        self.optimizer.load(
            {
                name: {key: tensors[f"optimizer.{name}.{key}"] for key in ("step", *MOMENTS)}
                for name in self.optimizer.parameters
            }
        )
        if self.scaler.is_enabled() and scaler:
            self.scaler.load_state_dict(scaler)
        self.history = history
        self.train_seconds = train_seconds
        self.evaluation_seconds = evaluation_seconds

    def _refuse_other(self, tensors: Mapping[str, Tensor]) -> None:
        """Raise StateError unless there is a tensor of the right shape for everything that `restore` fills."""
        wanted = {f"model.{name}": tensor.shape for name, tensor in self.model.state_dict().items()}
        for name, parameter in self.optimizer.parameters.items():
            wanted[f"optimizer.{name}.step"] = torch.Size()
            wanted |= {f"optimizer.{name}.{key}": parameter.shape for key in MOMENTS}
        for name, shape in wanted.items():
            if name not in tensors:
                raise StateError(f"holds no {name}")
            if tensors[name].shape != shape:
                raise StateError(f"its {name} has the shape {tuple(tensors[name].shape)}, the network's {tuple(shape)}")

    def _train_epoch(self, tick: Tick) -> EpochMetrics:
        self.execution.begin(self.draws.take(self.epoch))
        # Process 0 draws as one that executes all replicas; the others must not draw the same.
        self._seed(draw_seed(self.seed, self.epoch, "dropout") ^ self.group.rank)
        self.optimizer.lr = self.recipe.learning_rate_at(self.epoch)
        self._loss_sum.zero_()
        self._correct.zero_()
        self.model.train()
        for step in range(self.steps):
            self.execution(step, self._update)
            tick(step + 1, self.steps)
        self.group.all_reduce([self._loss_sum, self._correct])
        images = self.steps * self.batch * self.recipe.replicas
        return EpochMetrics((self._loss_sum / images).item(), self._correct.item() / images)

    def _update(self, index: Tensor, boxes: Boxes) -> None:
        """Take one step on this process's share of the images with these indices (N,).

        Nothing here may wait for the device: it is recorded.
        """
        share = len(index) // self.group.size
        mine = slice(share * self.group.rank, share * (self.group.rank + 1))
        images, labels = self.train.images[index[mine]], self.train.labels[index[mine]]
        if self.recipe.augmentation:
            images = augment(self.dataset, images, boxes.take(mine))
        self.optimizer.zero_grad()
        images = self._inputs(images)
        passes = zip(*(torch.split(whole, self.images_per_pass) for whole in (images, labels)), strict=True)
        for part, wanted in passes if self.built_in else self._in_turn(passes):
            loss, scores = self._forward(part, wanted)
            self.scaler.scale(loss * (len(wanted) / share)).backward()  # type: ignore[no-untyped-call]  # torch's gap
            self._loss_sum += loss.detach() * len(wanted)
            self._correct += (scores.argmax(1) == wanted).sum()
        self.group.average_gradients(self.model)
        self.scaler.step(self.optimizer)  # type: ignore[arg-type]  # it asks for no more than FusedAdamW has
        self.scaler.update()

    def _in_turn(self, passes: Iterable[tuple[Tensor, ...]]) -> Iterator[tuple[Tensor, ...]]:
        """The passes of another's network, one a replica, in every process from process 0's buffers."""
        self.group.broadcast(list(self.model.buffers()))
        return in_turn(self.model, passes)

    def _seed(self, seed: int) -> None:
        """Fix what a network may draw from. Ours draw from torch alone."""
        torch.manual_seed(seed)
        if not self.built_in:
            random.seed(seed)
            np.random.seed(seed % 2**32)

    def _evaluate(self, tick: Tick) -> EpochMetrics:
        """Measure loss and accuracy on the whole validation set, of which each process takes every size-th batch."""
        self.group.broadcast(list(self.model.buffers()))  # the running statistics are replica 0's
        loss_sum = torch.zeros((), dtype=torch.float64, device=self.device)
        correct = torch.zeros((), dtype=torch.int64, device=self.device)
        batch = self.evaluation_batch
        self.model.eval()
        with torch.inference_mode():
            for begin in range(0, len(self.val.labels), batch * self.group.size):
                start = begin + batch * self.group.rank
                images, labels = (part[start : start + batch] for part in self.val)
                if len(labels):
                    loss, scores = self._forward(self._inputs(images), labels)
                    loss_sum += loss.double() * len(labels)
                    correct += (scores.argmax(1) == labels).sum()
                tick(self.steps, self.steps)
        self.group.all_reduce([loss_sum, correct])
        samples = len(self.val.labels)
        return EpochMetrics(loss_sum.item() / samples, correct.item() / samples)

    def _inputs(self, images: Tensor) -> Tensor:
        """Images (N, 3, S, S), 0 to 255, as the network takes them."""
        return normalise(self.dataset, images).contiguous(memory_format=self.memory_format)

    def _forward(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Score normalised images (N, 3, S, S). Returns the mean loss and the scores (N, classes)."""
        with autocast(self.device, self.precision):
            scores = self.model(inputs)
        if not self.built_in:
            check_scores(scores, len(labels), self.classes)
        return F.cross_entropy(scores.float(), labels), scores


def train(trainer: Trainer, tick: Tick, after_epoch: Callable[[], None]) -> None:
    """Train to the recipe's last epoch; every process that shares the run calls this.

    after_epoch: called after each. It and `tick` may raise Stopped in process 0, and all stop at the same place.
    """
    group = trainer.group
    trainer.try_evaluation()
    while trainer.epoch < trainer.recipe.epochs:
        trainer.run_epoch(agreed(tick, group, trainer.device))
        together(after_epoch, group)
