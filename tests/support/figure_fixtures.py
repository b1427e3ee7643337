"""Realistic results: noisy curves that improve with the images, overfit, and react to learning rate drops."""

import math
import zlib
from collections.abc import Iterable, Sequence

import numpy as np
from result_fixtures import make_result

from analysis.study import Study
from trainer.records.plan import PlannedRun
from trainer.records.result import METRICS, Best, History, Result, Timing

WHY = "failed (node_fail): the node died"

# (floor, scale, exponent) of the error floor + scale n^-exponent.
SCALING = {"cifar10": (0.05, 5.0, 0.33), "tinyimagenet": (0.0, 1.9, 0.0985)}


def realistic_result(planned: PlannedRun) -> Result:
    """Create a result whose best validation error follows SCALING and which then overfits."""
    run, recipe = planned.run, planned.training
    random = np.random.default_rng(zlib.crc32(run.id.encode()))
    epochs, images = recipe.epochs, planned.train_samples
    vit = run.architecture == "vit"
    classes = 200 if run.dataset == "tinyimagenet" else 10
    floor, scale, exponent = SCALING.get(run.dataset, SCALING["cifar10"])
    error = min(floor + scale * images**-exponent * (1.04 if vit else 1.0), 0.97)
    best = 1 - error + random.normal(0, 0.02 * (1 - error))
    epoch = np.arange(epochs)
    pace = (25 if vit else 9) * epochs / 180
    rate = np.array([recipe.learning_rate_at(int(at)) for at in epoch]) / recipe.learning_rate
    gain = 1 - 0.07 * np.sqrt(rate)
    rise = 1 - np.exp(-(epoch + 1) / pace)
    noise = random.normal(0, 1, (4, epochs)) * np.sqrt(rate)
    val_accuracy = np.clip(best * gain * rise + 0.012 * noise[0] * gain, 0.0, 1.0)
    lowest = 0.25 + math.log(classes) * (1 - best) ** 1.2
    over = 0.9 * (1 - best) * np.log1p(epoch / (6 * pace)) * (0.6 + 0.4 * rate)
    val_loss = lowest + (math.log(classes) - lowest) * (1 - rise) + over + 0.03 * np.abs(noise[1])
    train_accuracy = np.clip(1 - (0.75 * np.exp(-(epoch + 1) / pace) + (0.05 if vit else 0.02) * rate), 0, 1)
    train_loss = 0.02 + math.log(classes) * np.exp(-(epoch + 1) / pace) + 0.1 * rate + 0.01 * np.abs(noise[3])
    history = History(
        train_loss=train_loss.tolist(),
        train_accuracy=train_accuracy.tolist(),
        val_loss=val_loss.tolist(),
        val_accuracy=val_accuracy.tolist(),
        learning_rate=[recipe.learning_rate_at(int(at)) for at in epoch],
        epoch_seconds=[1.0] * epochs,
    )
    seconds = images * epochs * 4e-5 * (4 if classes == 200 else 1) * (1.3 if vit else 1.0)
    seconds *= {42: 1.0, 43: 1.7, 44: 0.97}.get(run.seed, 1.2) * (1 + random.normal(0, 0.03))
    return make_result(planned, dict.fromkeys(METRICS, (0.5, 0))).model_copy(
        update={
            "history": history,
            "best": Best.of(history),
            "timing": Timing(
                train_seconds=60 + seconds, evaluation_seconds=epochs * 1.2, total_seconds=90 + seconds + epochs * 1.2
            ),
        }
    )


def realistic_study(planned: Sequence[PlannedRun], but: Iterable[str] = (), name: str = "thesis") -> Study:
    """Create a study of such results; but: run ids without one."""
    absent = set(but)
    assert absent <= {run.run.id for run in planned}
    results = {run.run.id: realistic_result(run) for run in planned if run.run.id not in absent}
    return Study(name, planned, results, dict.fromkeys(sorted(absent), WHY))
