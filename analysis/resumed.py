"""Runs that resumed on different hardware or software: another GPU, precision, number of threads, torch version."""

from trainer.records.result import Result


def crossed(result: Result) -> bool:
    """Tell whether a run changed hardware or software, so that its last bits may differ from an uninterrupted run's."""
    return len(result.hardware.stretches) > 1


def stretches(result: Result) -> str:
    """Describe what computed a run's epochs, from which epoch on."""
    return "; ".join(f"from epoch {stretch.epoch}: {stretch}" for stretch in result.hardware.stretches)
