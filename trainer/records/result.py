"""result.json: what a finished run says of itself. Metric names are the keys of `History`."""

from typing import Literal

from pydantic import model_validator

from trainer.records.attempt import Attempt
from trainer.records.base import Finite, Record, Versioned
from trainer.records.recipe import Recipe
from trainer.records.run import Commitment, Run

Metric = Literal["train_loss", "train_accuracy", "val_loss", "val_accuracy"]
METRICS: tuple[Metric, ...] = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")


class History(Record):
    """One number an epoch, epoch 0 first; all lists are equally long."""

    train_loss: list[Finite] = []
    train_accuracy: list[Finite] = []
    val_loss: list[Finite] = []
    val_accuracy: list[Finite] = []
    learning_rate: list[Finite] = []
    epoch_seconds: list[Finite] = []

    @model_validator(mode="after")
    def _equally_long(self) -> "History":
        lengths = {name: len(getattr(self, name)) for name in type(self).model_fields}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"history holds unequal numbers of epochs: {lengths}")
        return self

    @property
    def epochs(self) -> int:
        return len(self.train_loss)


class BestValue(Record):
    """The best value of one metric and the first epoch that reached it."""

    value: Finite
    epoch: int


class Best(Record):
    """The best value of each metric: highest accuracy, lowest loss."""

    train_loss: BestValue
    train_accuracy: BestValue
    val_loss: BestValue
    val_accuracy: BestValue

    @classmethod
    def of(cls, history: History) -> "Best":
        """Find the best of each metric; the earliest epoch on a tie. The history must hold an epoch."""

        def best(metric: Metric) -> BestValue:
            values: list[float] = getattr(history, metric)
            value = max(values) if metric.endswith("accuracy") else min(values)
            return BestValue(value=value, epoch=values.index(value))

        return cls(**{metric: best(metric) for metric in METRICS})


class DataRecord(Record):
    """What a run was trained on."""

    fingerprint: str
    train_samples: int
    val_samples: int
    classes: int


class Timing(Record):
    """Seconds, summed over attempts. Training and evaluation count only work that is in the history."""

    train_seconds: Finite
    evaluation_seconds: Finite
    total_seconds: Finite


class Stretch(Record):
    """The epochs from this one on, and what computed them: what differs in any of it may round otherwise.

    device: the GPU's name, or the processor's.
    """

    epoch: int
    device: str
    precision: str
    threads: int
    torch: str

    def like(self, other: "Stretch") -> bool:
        """Whether both compute the same bits, as far as can be known."""
        return self.model_copy(update={"epoch": other.epoch}) == other

    def __str__(self) -> str:
        return f"{self.device}, {self.precision}, {self.threads} threads, torch {self.torch}"


class Hardware(Record):
    """Where the last attempt ran. precision is what was used, also when the recipe says auto.

    stretches: what computed which epochs; more than one where the run went on on something else.
    """

    host: str
    cpu: str
    gpus: list[str]
    pool: str
    device: str
    precision: str
    stretches: list[Stretch] = []

    @property
    def precisions(self) -> list[str]:
        """List the number formats the epochs were computed in, in their order."""
        return list(dict.fromkeys([*(stretch.precision for stretch in self.stretches), self.precision]))


class Environment(Record):
    """What the last attempt ran on. own_code: a name made of the content of the user's own modules, where the network
    is one of theirs; None in results of earlier versions.
    """

    python: str
    torch: str
    torchvision: str
    cuda: str | None
    git_commit: str | None
    git_dirty: bool | None
    slurm_job_id: str | None
    own_code: str | None = None


class Result(Versioned):
    """result.json: written last, once, by a run that finished. A run is done if and only if this validates."""

    run: Run
    training: Recipe
    training_hash: str
    data: DataRecord
    parameters: int
    history: History
    best: Best
    timing: Timing
    hardware: Hardware
    environment: Environment
    attempts: list[Attempt]

    @property
    def commitment(self) -> Commitment:
        """What it is the result of, as run.json says it."""
        return Commitment(run=self.run, training=self.training, data_fingerprint=self.data.fingerprint)

    @model_validator(mode="after")
    def _tells_one_story(self) -> "Result":
        if self.history.epochs != self.training.epochs:
            raise ValueError(f"history holds {self.history.epochs} epochs, the recipe has {self.training.epochs}")
        if self.training_hash != self.training.hash:
            raise ValueError("training_hash is not the hash of training")
        if self.best != Best.of(self.history):
            raise ValueError("best is not the best of history")
        return self
