"""The GPU memory that runs need at their peak, and the pools that cannot give it. Pure.

All images of a run, its weights with gradients and AdamW's two moments, a recorded step's activations and those of an
evaluation live together. Counted, not measured: cuDNN's workspaces and what torch's allocator keeps unused come on top,
up to a third on an H200, which the allocator gives back where memory is short.
"""

from collections.abc import Iterator
from typing import NamedTuple

from slurm.pools import Pool
from sweep.config.schema import PlacedRun, Sweep
from trainer.models.catalog import ARCHITECTURES

GIB = 2**30
CONTEXT_GIB = 0.6  # CUDA's own, of each process (H200, torch 2.11)
EVALUATION_BATCH = 2500  # trainer.loop.device's, on a GPU
COPIES = 4  # of the weights: they, their gradients and AdamW's two moments, in fp32 all
REDUCED = ("fp16", "bf16")
AUTO_IS_FP32 = ("cpu", "p100")
# An estimate is no reason to refuse what may just fit: alone, a run must be beyond it by this much. What is wrong with
# runs that share a GPU is mended by sharing less, which costs little, so they have to fit.
ALONE, NEAR = 1.15, 0.9


class Need(NamedTuple):
    """What the runs of a pool need of a GPU at most, where the pool says what its GPUs have.

    run: the one that needs most; gib: of its process; workers: how many processes share a GPU.
    """

    pool: str
    run: str
    gib: float
    workers: int
    gpu_gib: float

    @property
    def fit(self) -> int:
        """How many such processes fit on the GPU."""
        return int(self.gpu_gib / self.gib)

    @property
    def problem(self) -> tuple[str, str] | None:
        """Why they do not fit, and what to do."""
        if self.gib > ALONE * self.gpu_gib:
            words = f"{self.run} needs about {self.gib:.1f} GiB of a GPU, which has {self.gpu_gib:g}"
            return words, "send it to another pool, give it more GPUs ('execution.gpus_per_run'), or lower 'batch_size'"
        if self.workers > max(1, self.fit):
            shared = f"{self.workers} runs on a GPU need about {self.workers * self.gib:.1f} GiB of it ({self.run})"
            return f"{shared}, and it has {self.gpu_gib:g}", f"set 'cluster.runs_per_gpu: {max(1, self.fit)}'"
        return None

    @property
    def warning(self) -> str | None:
        """That they may not fit."""
        needed = self.gib * self.workers
        if self.problem or needed <= NEAR * self.gpu_gib:
            return None
        return f"{self.run} and its like need about {needed:.1f} of {self.gpu_gib:g} GiB; they may just not fit"


def needs(sweep: Sweep) -> Iterator[Need]:
    """What each pool's GPUs must give at most; of pools that say how much they have."""
    if sweep.cluster is None:
        return
    section, gpus = sweep.cluster.section, sweep.execution.gpus_per_run
    for name, pool in sweep.cluster.pools.items():
        runs = [placed for placed in sweep.runs if placed.pool == name]
        if runs and pool.gpu_memory_gb and pool.device != "cpu":
            gib, largest = max((run_gib(placed, pool, gpus), placed.id) for placed in runs)
            yield Need(name, largest, gib + CONTEXT_GIB, section.runs_per_gpu, pool.gpu_memory_gb)


def run_gib(placed: PlacedRun, pool: Pool, gpus: int = 1) -> float:
    """Count what a run needs on each of its GPUs, in GiB, besides CUDA's own."""
    recipe = placed.spec.training
    network = ARCHITECTURES[placed.spec.run.architecture]
    auto = "fp32" if pool.device in AUTO_IS_FP32 else "reduced"
    precision = auto if recipe.precision == "auto" else recipe.precision
    part = network.reduced if precision in (*REDUCED, "reduced") else 1.0
    step = recipe.replicas // gpus * recipe.batch_size * network.step_bytes(placed.image_size)
    evaluation = min(EVALUATION_BATCH, placed.val_samples) * network.evaluation_bytes(placed.image_size)
    images = (placed.train_samples + placed.val_samples) * 3 * placed.image_size**2
    weights = COPIES * 4 * network.parameters
    return (images + weights + part * (step + evaluation)) / GIB
