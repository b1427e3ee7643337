"""Runs that went on on something else than they began on: another GPU, format, number of threads, version of torch."""

from trainer.records.result import Result


def crossed(result: Result) -> bool:
    """Tell whether a run's last bits may differ from those of one that stayed where it was."""
    return len(result.hardware.stretches) > 1


def stretches(result: Result) -> str:
    """Say what computed a run's epochs, each from which epoch on."""
    return "; ".join(f"from epoch {stretch.epoch}: {stretch}" for stretch in result.hardware.stretches)
