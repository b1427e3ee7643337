"""The peer: the thesis's pipeline as a user would write it with Lightning, on one device.

No image is decoded: each item is a PIL image made from an array, as in torchvision's CIFAR10; TinyImageNet's JPEG files
would be slower. The Trainer is the default without logger, progress bar and checkpoints, which ours lacks here too.
The ViT consists of torch's own layers, its attention called without weights, which is faster. All three favour the
peer.

`benchmarks.launch` calls `python -m benchmarks.peer_lightning ASSIGNMENT ANSWER`.
"""

import sys
from typing import Any

import lightning
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
import torchvision
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmarks.records import Assignment, Measurement
from benchmarks.watch import Watch, answer, read_assignment
from trainer.data.augment import PADDING, SCALE
from trainer.data.catalog import DATASETS
from trainer.data.catalog import Dataset as Facts
from trainer.models.dropout import Dropout
from trainer.models.vit import HEADS, WIDTH, VisionTransformer
from trainer.records.recipe import Recipe

PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}
SEED = 42


class PictureDataset(Dataset[tuple[Tensor, int]]):
    """Images (N, 3, S, S) uint8 and labels (N,); items are transformed PIL images and labels."""

    def __init__(self, images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64], transform: Any) -> None:
        self.images = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
        self.labels = labels.tolist()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), self.labels[index]


class Attention(nn.MultiheadAttention):
    """torch's own self-attention."""

    def __init__(self) -> None:
        super().__init__(WIDTH, HEADS, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """Mix the tokens of x: (N, T, width). Returns the same shape."""
        mixed, _ = super().forward(x, x, x, need_weights=False)
        return mixed


class Pipeline(lightning.LightningModule):  # type: ignore[misc]  # Lightning is not there when types are checked
    """The network with loss, metrics per epoch, optimiser and schedule."""

    def __init__(self, model: nn.Module, recipe: Recipe) -> None:
        super().__init__()
        self.model = model
        self.recipe = recipe

    def training_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> Tensor:
        return self._step(batch, "train")

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> None:
        self._step(batch, "val")

    def configure_optimizers(self) -> tuple[list[Any], list[Any]]:
        recipe = self.recipe
        optimizer = torch.optim.AdamW(
            self.parameters(),
            lr=recipe.learning_rate,
            betas=recipe.betas,
            eps=recipe.epsilon,
            weight_decay=recipe.weight_decay,
        )
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, list(recipe.lr_milestones), recipe.lr_decay)
        return [optimizer], [schedule]

    def _step(self, batch: tuple[Tensor, Tensor], split: str) -> Tensor:
        images, labels = batch
        scores = self.model(images)
        loss = F.cross_entropy(scores, labels)
        accuracy = (scores.argmax(1) == labels).float().mean()
        self.log_dict({f"{split}_loss": loss, f"{split}_accuracy": accuracy}, on_step=False, on_epoch=True)
        return loss


class Timing(lightning.Callback):  # type: ignore[misc]  # Lightning is not there when types are checked
    """Reports steps and epochs to the watch; an epoch includes its validation."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.validation_began = 0.0
        self.validation_s = 0.0

    def on_train_batch_end(self, *_: Any) -> None:
        self.watch.step_ended()

    def on_validation_start(self, *_: Any) -> None:
        self.validation_began = self.watch.now()

    def on_validation_end(self, *_: Any) -> None:
        self.validation_s = self.watch.now() - self.validation_began

    def on_train_epoch_end(self, *_: Any) -> None:
        self.watch.epoch_ended(self.validation_s)


def augmentation(facts: Facts) -> Any:
    """Return the dataset's training transform of one image."""
    size = facts.image_size
    if facts.augmentation == "crop":
        crop: Any = transforms.RandomCrop(size, padding=PADDING)
    else:
        crop = transforms.RandomResizedCrop(size, scale=SCALE)
    return transforms.Compose([crop, transforms.RandomHorizontalFlip(), plain(facts)])


def plain(facts: Facts) -> Any:
    """Return the transform of a validation image."""
    return transforms.Compose([transforms.ToTensor(), transforms.Normalize(facts.mean, facts.std)])


def build(architecture: str, classes: int, image_size: int, recipe: Recipe) -> nn.Module:
    """Build the network from torch's and torchvision's own layers."""
    if architecture == "resnet18":
        return torchvision.models.resnet18(num_classes=classes)  # type: ignore[no-any-return]
    model = VisionTransformer(classes, image_size, recipe.dropout)
    model.dropout = nn.Dropout(recipe.dropout)
    for block in model.blocks:
        block.attention = Attention()
        for place, layer in enumerate(block.mlp):
            if isinstance(layer, Dropout):
                block.mlp[place] = nn.Dropout(recipe.dropout)
    return model


def measure(assignment: Assignment) -> Measurement:
    """Fit one epoch to warm up, then the assignment's."""
    watch = Watch(assignment)
    images, facts, recipe = watch.images(), DATASETS[assignment.shape.dataset], Recipe()
    lightning.seed_everything(SEED, workers=True)
    workers, batch = assignment.side.loader_workers, assignment.side.batch
    options: dict[str, Any] = {
        "batch_size": batch,
        "num_workers": workers,
        "persistent_workers": workers > 0,
        "pin_memory": watch.device.type == "cuda",
    }
    train = PictureDataset(images.train, images.train_labels, augmentation(facts))
    val = PictureDataset(images.val, images.val_labels, plain(facts))
    model = Pipeline(build(assignment.shape.architecture, images.classes, facts.image_size, recipe), recipe)
    trainer = lightning.Trainer(
        max_epochs=1 + assignment.epochs,
        accelerator="gpu" if watch.device.type == "cuda" else "cpu",
        devices=1,
        precision=PRECISIONS[watch.precision],
        callbacks=[Timing(watch)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
    )
    trainer.fit(
        model,
        DataLoader(train, shuffle=True, drop_last=True, **options),
        DataLoader(val, **options),
    )
    metrics = trainer.callback_metrics
    return watch.measurement(
        trained=len(train) // batch * batch,
        validated=len(val),
        train_loss=metrics["train_loss"].item(),
        val_accuracy=metrics["val_accuracy"].item(),
    )


if __name__ == "__main__":
    assignment, path = read_assignment(sys.argv[1:])
    answer(path, measure(assignment))
