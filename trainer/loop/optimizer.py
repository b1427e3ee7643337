"""AdamW over all parameters in one fused call: torch.optim.AdamW(fused=True) without what surrounds it.

torch's own optimizers import its compiler with their first call, for 1.5 s; the arithmetic is the same kernel's.
Tests hold it to torch.optim.AdamW bit for bit.
"""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

MOMENTS = ("exp_avg", "exp_avg_sq")


class FusedAdamW:
    """Decoupled weight decay (Loshchilov & Hutter 2019) over named parameters; one without a gradient stays.

    state: by parameter name the tensors step (float32, scalar), exp_avg and exp_avg_sq; empty before the first step.
    GradScaler scales through the kernel: it sets grad_scale and found_inf for the length of a step. All tensors stay
    where they are, so that a recorded step finds them.
    """

    _step_supports_amp_scaling = True  # what GradScaler asks before it sets the two

    def __init__(
        self,
        parameters: Iterable[tuple[str, nn.Parameter]],
        *,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
    ) -> None:
        self.parameters = dict(parameters)
        self.betas = betas
        self.eps = eps
        self.weight_decay = weight_decay
        # The kernel reads the rate on the device: in single precision on a GPU, as a double on a CPU.
        device = next(iter(self.parameters.values())).device
        self._rate = torch.zeros((), dtype=torch.float64 if device.type == "cpu" else torch.float32, device=device)
        self.lr = 0.0
        self.state: dict[str, dict[str, Tensor]] = {}
        self.param_groups = [{"params": list(self.parameters.values())}]  # where GradScaler finds the gradients

    @property
    def lr(self) -> float:
        """The learning rate of the steps to come."""
        return self._lr

    @lr.setter
    def lr(self, rate: float) -> None:
        self._lr = rate
        self._rate.fill_(rate)

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self.parameters.values():
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Update every parameter by its gradient, at the rate lr."""
        grad_scale, found_inf = getattr(self, "grad_scale", None), getattr(self, "found_inf", None)
        self.begin()
        moved = {name: parameter for name, parameter in self.parameters.items() if parameter.grad is not None}
        states = [self.state[name] for name in moved]
        steps = [state["step"] for state in states]
        torch._foreach_add_(steps, 1)
        torch._fused_adamw_(
            list(moved.values()),
            [parameter.grad for parameter in moved.values() if parameter.grad is not None],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            steps,
            lr=self._rate,
            beta1=self.betas[0],
            beta2=self.betas[1],
            weight_decay=self.weight_decay,
            eps=self.eps,
            amsgrad=False,
            maximize=False,
            grad_scale=grad_scale,
            found_inf=found_inf,
        )
        if found_inf is not None:
            torch._foreach_sub_(steps, [found_inf] * len(steps))

    def begin(self) -> None:
        """Make the state of no step where there is none, to be filled; what there is keeps its place in memory."""
        for (
            name,
            parameter,
        ) in self.parameters.items():  # in their order: processes go through their states side by side
            if name not in self.state:
                self.state[name] = self._fresh(parameter)

    def load(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Go on from a state, of which copies are made where the parameters are."""
        self.begin()
        for name, mine in self.state.items():
            for key, tensor in mine.items():
                tensor.copy_(state[name][key])

    def _fresh(self, parameter: Tensor) -> dict[str, Tensor]:
        step = torch.zeros((), dtype=torch.float32, device=parameter.device)
        return {"step": step, **{key: torch.zeros_like(parameter) for key in MOMENTS}}


def forget_broken_step(optimizer: FusedAdamW, scaler: GradScaler) -> None:
    """Drop what a step that broke off has left behind: GradScaler would refuse the next one, or scale it twice."""
    optimizer.zero_grad()
    for name in ("grad_scale", "found_inf"):
        vars(optimizer).pop(name, None)
    if scaler.is_enabled():
        scaler._per_optimizer_states.clear()
