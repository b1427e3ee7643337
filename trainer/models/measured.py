"""What is asked about a network by reference before it is trained, and what is answered. No torch."""

from typing import NamedTuple


class Asked(NamedTuple):
    """A network, the images it is to take and how many classes it is to tell apart."""

    architecture: str
    classes: int
    image_size: int
    dropout: float


class Measured(NamedTuple):
    """What a network is and takes, an image: multiply-accumulates of a forward pass, bytes of GPU memory in fp32.

    problem: why it cannot be trained, in words; the rest is then nothing.
    """

    parameters: int = 0
    forward_macs: float = 0.0
    step_bytes: float = 0.0
    evaluation_bytes: float = 0.0
    problem: str | None = None
