"""Our side: the study's trainer as an attempt runs it, without records and checkpoints.

`benchmarks.launch` calls `python -m benchmarks.ours ASSIGNMENT ANSWER`.
"""

import sys

from trainer.loop.libraries import settle_libraries

settle_libraries(own_cores=True)  # as in a job with its own cores, before torch is imported

from benchmarks.records import Assignment, Measurement  # noqa: E402
from benchmarks.watch import Watch, answer, read_assignment  # noqa: E402
from trainer.data.catalog import DATASETS  # noqa: E402
from trainer.loop.trainer import Split, Trainer  # noqa: E402
from trainer.records.recipe import Recipe  # noqa: E402

SEED = 42


def measure(assignment: Assignment) -> Measurement:
    """Train with the recipe's four replicas: one epoch to warm up, then the assignment's."""
    watch = Watch(assignment)
    images = watch.images()
    recipe = Recipe(epochs=1 + assignment.epochs, batch_size=assignment.side.batch)
    trainer = Trainer(
        architecture=assignment.shape.architecture,
        dataset=DATASETS[assignment.shape.dataset],
        classes=images.classes,
        recipe=recipe,
        seed=SEED,
        precision=watch.precision,
        train=Split.from_arrays(images.train, images.train_labels, watch.device),
        val=Split.from_arrays(images.val, images.val_labels, watch.device),
    )
    for _ in range(recipe.epochs):
        before = trainer.evaluation_seconds
        trainer.run_epoch(lambda step, steps: watch.step_ended())
        watch.epoch_ended(trainer.evaluation_seconds - before)
    return watch.measurement(
        trained=trainer.steps * trainer.batch * recipe.replicas,
        validated=len(images.val_labels),
        train_loss=trainer.history.train_loss[-1],
        val_accuracy=trainer.history.val_accuracy[-1],
    )


if __name__ == "__main__":
    assignment, path = read_assignment(sys.argv[1:])
    answer(path, measure(assignment))
