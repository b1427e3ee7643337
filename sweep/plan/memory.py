"""The GPU memory that runs need at their peak, and the pools that cannot give it. Pure.

All images of a run, its weights with gradients and AdamW's two moments, a recorded step's activations and those of an
evaluation live together. Counted, not measured: workspaces and what torch's allocator keeps unused are left out. With
them a process held 1.2 to 1.4 times as much on an H200, CUDA's own included (benchmarks/results, n = 1, algorithms
searched for). The allocator gives that back where its own process is short of memory, not to others on the GPU.
"""

from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import NamedTuple

from slurm.pools import Pool
from sweep.config.schema import PlacedRun, Sweep
from trainer.models.catalog import Architecture, facts
from trainer.records.recipe import replica_batch

GIB = 2**30
CONTEXT_GIB = 0.6  # CUDA's own, of each process (H200, torch 2.11)
EVALUATION_BATCH = 2500  # trainer.loop.device's, on a GPU
COPIES = 4  # of the weights: they, their gradients and AdamW's two moments, in fp32 all
# An estimate is no reason to refuse what may just fit: alone, a run must be beyond it by this much. What is wrong with
# runs that share a GPU is mended by sharing less, which costs little, so they have to fit.
ALONE, NEAR = 1.15, 0.9


class Need(NamedTuple):
    """What the runs of a pool need of a GPU at most.

    run: the one that needs most; gibs: of the processes that may share a GPU, the largest first. stated: whether the
    pool says what its GPUs have; otherwise gpu_gib is the least that GPUs of its kind have, and refuses nothing.
    """

    pool: str
    run: str
    gibs: tuple[float, ...]
    gpu_gib: float
    stated: bool = True

    @property
    def has(self) -> str:
        """What a GPU has, in words."""
        return f"{'' if self.stated else 'at least '}{self.gpu_gib:g} GiB"

    @property
    def fit(self) -> int:
        """How many of its largest processes fit on the GPU."""
        return sum(together <= self.gpu_gib for together in accumulate(self.gibs))

    @property
    def problem(self) -> tuple[str, str] | None:
        """Why they do not fit, and what to do."""
        return self._misfit if self.stated else None

    @property
    def warning(self) -> tuple[str, str] | None:
        """That they may not fit, and what to do."""
        if self.problem:
            return None
        if self._misfit:
            words, remedy = self._misfit
            return words, f"give the pool its 'gpu_memory_gb' if that is more, otherwise {remedy}"
        needed = sum(self.gibs)
        if needed <= NEAR * self.gpu_gib:
            return None
        words = f"{self.run} and its like need about {needed:.1f} GiB of {self.has}; they may just not fit"
        return words, "lower 'batch_size' or 'runs_per_gpu' if runs fail of it"

    @property
    def _misfit(self) -> tuple[str, str] | None:
        if self.gibs[0] > ALONE * self.gpu_gib:
            words = f"{self.run} needs about {self.gibs[0]:.1f} GiB of a GPU, which has {self.has}"
            more = "send it to another pool, give it more GPUs ('execution.gpus_per_run')"
            return words, f"{more}, lower 'batch_size', or take another 'precision'"
        if len(self.gibs) > max(1, self.fit):
            shared = f"{len(self.gibs)} runs on a GPU need up to about {sum(self.gibs):.1f} GiB of it ({self.run})"
            return f"{shared}, and it has {self.has}", f"set 'cluster.runs_per_gpu: {max(1, self.fit)}'"
        return None


def needs(sweep: Sweep, runs: Iterable[PlacedRun]) -> Iterator[Need]:
    """What each pool's GPUs must give at most for these runs."""
    if sweep.cluster is None or sweep.execution.device == "cpu":
        return
    placed_in: dict[str, list[PlacedRun]] = {}
    for placed in runs:
        placed_in.setdefault(placed.pool, []).append(placed)
    for name, group in placed_in.items():
        pool = sweep.cluster.pools[name]
        if pool.device.is_gpu:
            gpu_gib = pool.gpu_memory_gb or pool.device.memory_gb
            sizes = sorted(((_need_gib(sweep, placed, pool), placed.id) for placed in group), reverse=True)
            gibs = tuple(gib for gib, _ in sizes[: sweep.cluster.section.runs_per_gpu])
            yield Need(name, sizes[0][1], gibs, gpu_gib, stated=pool.gpu_memory_gb is not None)


def _need_gib(sweep: Sweep, placed: PlacedRun, pool: Pool) -> float:
    network = sweep.network(placed.spec.run)
    return run_gib(placed, pool, sweep.execution.gpus_per_run, network) + CONTEXT_GIB


def run_gib(placed: PlacedRun, pool: Pool, gpus: int = 1, network: Architecture | None = None) -> float:
    """Count what a run needs on each of its GPUs, in GiB, besides CUDA's own.

    network: what is known of its network, if that is more than its name tells.
    """
    network = network or facts(placed.spec.run.architecture)
    recipe = placed.spec.training
    auto_is_fp32 = recipe.precision == "auto" and pool.device.auto_is_fp32
    part = 1.0 if auto_is_fp32 or recipe.precision == "fp32" else network.reduced
    batch, _ = replica_batch(placed.train_samples, recipe)
    at_once = 1 if network.in_turn else recipe.replicas // gpus
    step = at_once * batch * network.step_bytes(placed.image_size)
    evaluated = recipe.batch_size if network.in_turn else EVALUATION_BATCH
    evaluation = min(evaluated, placed.val_samples) * network.evaluation_bytes(placed.image_size)
    images = (placed.train_samples + placed.val_samples) * 3 * placed.image_size**2
    weights = COPIES * 4 * network.parameters
    return (images + weights + part * (step + evaluation)) / GIB
