"""What a run will cost, from its arithmetic: seconds on a kind of device. Pure.

An estimate to choose by, not a promise: multiply-accumulates of the recipe divided by what the device sustains on it.
"""

from trainer.models.catalog import ARCHITECTURES
from trainer.records import RunSpec

# A multiply-accumulate is two operations; backward costs twice what forward does.
OPERATIONS_PER_MAC = 2
PASSES_TRAINING = 3

# Operations a second sustained in fp32 on these two networks. CPU: a Xeon of 2023, one core, measured with this trainer
# (n = 1). The GPUs: two fifths of the vendor's fp32 peak, not measured here.
SUSTAINED = {"cpu": 80e9, "p100": 3.7e12, "v100": 6.0e12, "a100": 7.8e12, "h100": 24e12}

START_S = 3.0  # Python, torch, data, first step


def estimate_s(spec: RunSpec, *, device: str, image_size: int, train_samples: int, val_samples: int) -> float:
    """Estimate the seconds of a run with one device (one core, for a CPU) to itself."""
    macs = ARCHITECTURES[spec.run.architecture].forward_macs(image_size)
    images = PASSES_TRAINING * train_samples + val_samples
    return START_S + spec.training.epochs * images * macs * OPERATIONS_PER_MAC / SUSTAINED[device]
