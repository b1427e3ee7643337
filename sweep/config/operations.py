"""What a run costs by its arithmetic: the recipe's operations over what a device sustains. Pure."""

from sweep.config.schema import PlacedRun
from trainer.models.catalog import ARCHITECTURES

# A multiply-accumulate is two operations; backward costs twice what forward does.
OPERATIONS_PER_MAC = 2
PASSES_TRAINING = 3

# Operations a second sustained in fp32 on these two networks. CPU: a core of a Xeon of 2023, between ResNet-18's 130e9
# and the ViT's 86e9 (benchmarks/results, n = 5). The H200: that of the whole study, 17e12 to 24e12 by network and size
# (benchmarks/results, n = 1). The other GPUs: two fifths of the vendor's fp32 peak, not measured here.
SUSTAINED = {"cpu": 105e9, "p100": 3.7e12, "v100": 6.0e12, "a100": 7.8e12, "h100": 24e12, "h200": 23e12}
START_S = 3.0  # Python, torch, data, first step


def estimate_s(run: PlacedRun) -> float:
    """Estimate the seconds of a run by its operations, with one device (one core, for a CPU) to itself."""
    macs = ARCHITECTURES[run.spec.run.architecture].forward_macs(run.image_size)
    images = PASSES_TRAINING * run.train_samples + run.val_samples
    return START_S + run.spec.training.epochs * images * macs * OPERATIONS_PER_MAC / SUSTAINED[run.device]


def device_kind(gpu: str | None) -> str | None:
    """The key in SUSTAINED of a GPU, by its vendor's name for it; of the CPU for None. None for a GPU not listed."""
    if gpu is None:
        return "cpu"
    return next((kind for kind in SUSTAINED if kind in gpu.lower()), None)
