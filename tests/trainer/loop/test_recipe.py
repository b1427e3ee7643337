"""The recipe says all that changes a result and refuses what makes no sense; the loop does what it says."""

import copy
import math
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from rounding import RESNET_LAYERS, VIT_LAYERS, rounding
from torch import Tensor
from training_fixtures import in_double, make_trainer, no_tick, random_split, train_epochs

from trainer.data.augment import normalise
from trainer.data.catalog import DATASETS
from trainer.data.order import epoch_order
from trainer.loop.device import EVALUATION_BATCH
from trainer.loop.trainer import DivergedError, Trainer
from trainer.records.recipe import Recipe

pytestmark = pytest.mark.slow

OTHER: dict[str, Any] = {
    "epochs": 181,
    "batch_size": 64,
    "replicas": 1,
    "learning_rate": 1e-3,
    "lr_milestones": (100,),
    "lr_decay": 0.2,
    "weight_decay": 0.0,
    "betas": (0.9, 0.99),
    "epsilon": 1e-7,
    "dropout": 0.0,
    "augmentation": False,
    "precision": "bf16",
}


def test_the_defaults_are_the_thesis_s() -> None:
    """What a sweep file does not say is what the thesis did; the optimiser's part is torch's own defaults."""
    recipe = Recipe()
    assert (recipe.epochs, recipe.batch_size, recipe.replicas, recipe.dropout) == (180, 128, 4, 0.2)
    assert (recipe.learning_rate, recipe.lr_milestones, recipe.lr_decay) == (3e-4, (100, 150), 0.1)
    assert (recipe.augmentation, recipe.precision) == (True, "fp32")
    torch_s = torch.optim.AdamW([torch.zeros(1)]).defaults
    assert (recipe.betas, recipe.epsilon, recipe.weight_decay) == (
        torch_s["betas"],
        torch_s["eps"],
        torch_s["weight_decay"],
    )


def test_everything_in_a_recipe_changes_its_hash() -> None:
    """Two recipes that differ in any one field have different hashes; what is written and read back has the same."""
    assert OTHER.keys() == Recipe.model_fields.keys()
    recipes = [Recipe(), *(Recipe(**{name: value}) for name, value in OTHER.items())]
    assert len({recipe.hash for recipe in recipes}) == len(recipes)
    for recipe in recipes:
        assert Recipe.model_validate_json(recipe.model_dump_json()).hash == recipe.hash
    assert Recipe(weight_decay=0, learning_rate=1).hash == Recipe(weight_decay=0.0, learning_rate=1.0).hash


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0),
        ("epochs", 1.5),
        ("epochs", True),
        ("epochs", "180"),
        ("batch_size", 1),
        ("replicas", 0),
        ("learning_rate", 0),
        ("learning_rate", -1e-4),
        ("learning_rate", math.nan),
        ("learning_rate", math.inf),
        ("learning_rate", "3e-4"),
        ("lr_milestones", (150, 100)),
        ("lr_milestones", (100, 100)),
        ("lr_milestones", (0,)),
        ("lr_decay", 0),
        ("weight_decay", -0.1),
        ("betas", (0.9, 1.0)),
        ("betas", (0.9,)),
        ("epsilon", 0),
        ("dropout", 1),
        ("dropout", -0.1),
        ("augmentation", "no"),
        ("precision", "fp64"),
        ("momentum", 0.9),
    ],
)
def test_what_makes_no_sense_is_refused_by_its_name(field: str, value: object) -> None:
    """A value out of its range or of another kind is an error at that field, never converted or passed on."""
    with pytest.raises(ValidationError) as refused:
        Recipe(**{field: value})
    [error] = refused.value.errors()
    assert field in str(error["loc"] or error["msg"])


@pytest.mark.parametrize(
    "recipe", [Recipe(), Recipe(lr_milestones=(1, 2, 179), lr_decay=0.5), Recipe(lr_milestones=())]
)
def test_the_learning_rate_is_multi_step_lr_s(recipe: Recipe) -> None:
    """In each of 180 epochs, the rate that torch's MultiStepLR has arrived at."""
    optimizer = torch.optim.AdamW([torch.zeros(1)], lr=recipe.learning_rate)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, list(recipe.lr_milestones), recipe.lr_decay)
    for epoch in range(180):
        assert recipe.learning_rate_at(epoch) == pytest.approx(schedule.get_last_lr()[0], rel=1e-12), epoch
        optimizer.step()
        schedule.step()


EPOCHS = 4
STEPS = 2 * EPOCHS
# Of the loss of some images, which is taken and added up in single precision whatever the network computes in.
IN_SINGLE = rounding(torch.float32, terms=EVALUATION_BATCH)
UNUSUAL: dict[str, Any] = {
    "replicas": 2,
    "batch_size": 8,
    "learning_rate": 3e-5,
    "lr_milestones": (2,),
    "weight_decay": 50.0,  # strong enough to show at that rate
    "betas": (0.8, 0.95),
    "epsilon": 1e-4,
    "dropout": 0.0,
    "augmentation": False,
}


class Reference(NamedTuple):
    """A trainer after some epochs, and the same written out with torch's plain AdamW: weights, one row a batch."""

    trainer: Trainer
    weights: dict[str, Tensor]
    losses: list[list[float]]
    accuracies: list[list[float]]


@pytest.fixture(scope="module", params=["resnet18", "vit"])
def reference(request: pytest.FixtureRequest) -> Reference:
    trainer = in_double(make_trainer(request.param, train=random_split(36), val=random_split(4, seed=1), **UNUSUAL))
    model = copy.deepcopy(trainer.model).train()
    train_epochs(trainer, EPOCHS)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=3e-5, betas=(0.8, 0.95), eps=1e-4, weight_decay=50.0, foreach=False, fused=False
    )
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [2])
    losses: list[list[float]] = []
    accuracies: list[list[float]] = []
    for epoch in range(EPOCHS):
        losses.append([])
        accuracies.append([])
        for index in epoch_order(36, 2, 8, 2, 42, epoch):
            inputs = normalise(DATASETS["cifar10"], trainer.train.images[index])
            scores = model(inputs.contiguous(memory_format=torch.channels_last))
            loss = F.cross_entropy(scores.float(), trainer.train.labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses[-1].append(loss.item())
            accuracies[-1].append((scores.argmax(1) == trainer.train.labels[index]).float().mean().item())
        schedule.step()
    return Reference(trainer, dict(model.named_parameters()), losses, accuracies)


def test_steps_are_torch_s_adamw_with_the_recipe_s_numbers(reference: Reference) -> None:
    """After 8 steps over 4 epochs, the rate falling after 2, every weight is what the unfused optimiser makes it.

    The loss is taken in single precision, whose rounding may reach the gradients; it moves a weight by the rate times
    that over epsilon.
    """
    apart = rounding(torch.float32, depth=STEPS) / UNUSUAL["epsilon"] * UNUSUAL["learning_rate"]
    for name, found in reference.trainer.model.named_parameters():
        torch.testing.assert_close(
            found, reference.weights[name], atol=apart, rtol=0, msg=lambda m, n=name: f"{n}: {m}"
        )
    assert reference.trainer.history.learning_rate == pytest.approx([3e-5, 3e-5, 3e-6, 3e-6])


def test_train_metrics_are_means_over_the_epoch_s_batches_in_training_mode(reference: Reference) -> None:
    """Loss and accuracy are measured on the way, by the network as it was at each batch, batch statistics and all."""
    history = reference.trainer.history
    assert history.train_loss == pytest.approx([sum(row) / 2 for row in reference.losses], rel=IN_SINGLE)
    assert history.train_accuracy == pytest.approx([sum(row) / 2 for row in reference.accuracies])
    assert history.epochs == reference.trainer.epoch == EPOCHS


def test_validation_covers_every_image_in_evaluation_mode() -> None:
    """A last batch shorter than the others counts by its images: the same as one pass over all of them."""
    val = random_split(EVALUATION_BATCH + 3, seed=1)
    trainer = in_double(make_trainer(train=random_split(8), val=val, replicas=1, batch_size=8))
    train_epochs(trainer, 1)
    trainer.model.eval()
    with torch.inference_mode():
        scores = trainer.model(normalise(trainer.dataset, val.images))
    assert trainer.history.val_loss[-1] == pytest.approx(F.cross_entropy(scores, val.labels).item(), rel=IN_SINGLE)
    assert trainer.history.val_accuracy[-1] == (scores.argmax(1) == val.labels).sum().item() / len(val.labels)


@pytest.mark.parametrize(("learning_rate", "said"), [(1e30, "validation loss is nan"), (1e-3, "training loss is nan")])
def test_a_loss_that_is_no_number_ends_the_run_before_it_is_written_down(learning_rate: float, said: str) -> None:
    """DivergedError says which loss and in which epoch; the history ends before it."""
    trainer = make_trainer(train=random_split(8), replicas=1, batch_size=8, learning_rate=learning_rate)
    if said.startswith("training"):
        with torch.no_grad():
            trainer.model.fc.bias[0] = math.nan
    with pytest.raises(DivergedError, match=f"{said} in epoch 0"):
        trainer.run_epoch(no_tick)
    assert trainer.epoch == 0


def test_dropout_and_augmentation_are_what_the_recipe_says() -> None:
    """Each changes the epoch it is switched on in, and without them an epoch is the same function of its images."""
    small = {"train": random_split(8), "val": random_split(2), "replicas": 1, "batch_size": 8}

    def loss(**recipe: Any) -> float:
        return train_epochs(make_trainer("vit", **small, **recipe), 1).history.train_loss[0]

    plain = loss(dropout=0.0, augmentation=False)
    assert plain == loss(dropout=0.0, augmentation=False)
    assert len({plain, loss(dropout=0.2, augmentation=False), loss(dropout=0.0, augmentation=True)}) == 3


def test_every_step_ticks_and_a_tick_may_stop_the_epoch() -> None:
    """tick sees each step of the epoch in turn; what it raises comes out, and no epoch is added."""
    trainer = make_trainer(train=random_split(12), val=random_split(2), replicas=1, batch_size=4)
    seen = []
    trainer.run_epoch(lambda step, steps: seen.append((step, steps)))
    assert seen == [(1, 3), (2, 3), (3, 3), (3, 3)]

    def stop(step: int, steps: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer.run_epoch(stop)
    assert trainer.epoch == 1


@pytest.mark.parametrize("architecture", ["resnet18", "vit"])
def test_bf16_on_a_cpu_is_close_to_fp32(architecture: str) -> None:
    """The first step's loss agrees up to rounding but not exactly; weights and what is reported stay fp32."""
    trainers = [
        make_trainer(
            architecture, train=random_split(16), val=random_split(4), replicas=2, batch_size=8, precision=precision
        )
        for precision in ("fp32", "bf16")
    ]
    exact, rounded = (train_epochs(trainer, 1).history.train_loss[0] for trainer in trainers)
    depth = {"resnet18": RESNET_LAYERS, "vit": VIT_LAYERS}[architecture]
    assert rounded == pytest.approx(exact, rel=rounding(torch.bfloat16, depth=depth))
    assert rounded != exact
    assert {tensor.dtype for tensor in trainers[1].model.parameters()} == {torch.float32}
