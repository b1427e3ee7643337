"""What an attempt is to do, settled before it begins."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from trainer.data.prepared import PreparedDataset
from trainer.records.claim import Claim
from trainer.records.code import Code
from trainer.records.run import Commitment, Options, RunFolder


class Assignment(NamedTuple):
    """A run, its folder and the claim on it, and how to execute it.

    kept: indices of its training images. code: what it was sent with.
    """

    commitment: Commitment
    folder: RunFolder
    claim: Claim
    dataset: PreparedDataset
    kept: npt.NDArray[np.int64]
    device: torch.device
    pool: str
    options: Options
    code: Code | None = None

    @property
    def run_id(self) -> str:
        return self.commitment.run.id
