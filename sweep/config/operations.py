"""What a run costs by its arithmetic: the recipe's operations over what a device sustains. Pure."""

from slurm.devices import CPU, Device, device_called
from sweep.config.schema import PlacedRun
from trainer.models.catalog import Architecture, facts

# A multiply-accumulate is two operations; backward costs twice what forward does.
OPERATIONS_PER_MAC = 2
PASSES_TRAINING = 3
START_S = 3.0  # Python, torch, data, first step


def estimate_s(run: PlacedRun, network: Architecture | None = None) -> float:
    """Estimate the seconds of a run by its operations, with one device (one core, for a CPU) to itself.

    network: what is known of its network, if that is more than its name tells.
    """
    macs = (network or facts(run.spec.run.architecture)).forward_macs(run.image_size)
    images = PASSES_TRAINING * run.train_samples + run.val_samples
    return START_S + run.spec.training.epochs * images * macs * OPERATIONS_PER_MAC / run.device.sustained


def device_kind(gpu: str | None) -> Device | None:
    """The device of a GPU, by its vendor's name for it; of the CPU for None. None for a GPU not in the table."""
    return CPU if gpu is None else device_called(gpu)
