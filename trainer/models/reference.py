"""A network that is not ours, by reference: "module:function" is imported and called.

The function, or class, is given what it names among `classes` or `num_classes`, `image_size` and `dropout`, and returns
a module that maps images (N, 3, S, S) to scores (N, classes). The module is found where Python finds modules: in the
code frozen with the submission, or among what is installed.
"""

import importlib
import inspect
from typing import Any

from torch import Tensor, nn


class ModelError(Exception):
    """A network that cannot be trained as it is; the message says what is wrong with it."""


def load_model(reference: str, classes: int, image_size: int, dropout: float) -> nn.Module:
    """Build the network with torch's current random state.

    Raises ModelError if there is no such function, or if what it returns is no network that can be trained and saved.
    """
    module, _, name = reference.partition(":")
    if module == "torchvision":
        model = _torchvision(name, classes)
    else:
        known = {"classes": classes, "num_classes": classes, "image_size": image_size, "dropout": dropout}
        model = _call(_find(module, name), known)
    if not isinstance(model, nn.Module):
        raise ModelError(f"{reference} returned {type(model).__name__}, not a torch.nn.Module")
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ModelError(f"{reference} has no parameters to train")
    other = [key for key, value in model.state_dict().items() if not isinstance(value, Tensor)]
    if other:
        raise ModelError(f"{reference} keeps '{other[0]}' in its state, which is no tensor and cannot be saved")
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.contiguous()  # an expanded one cannot be written to, and processes exchange memory
    return model


def check_scores(scores: Any, images: int, classes: int) -> None:
    """Raise ModelError unless a network's answer to some images is a tensor (images, classes)."""
    if not isinstance(scores, Tensor):
        raise ModelError(f"the network returned {type(scores).__name__} instead of a tensor of scores")
    if scores.shape != (images, classes):
        raise ModelError(
            f"the network returned scores of the shape {tuple(scores.shape)} for {images} images of {classes} classes; "
            f"({images}, {classes}) is needed"
        )


def _find(module: str, name: str) -> Any:
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not (module == error.name or module.startswith(f"{error.name}.")):
            raise  # one of the modules that it imports
        raise ModelError(f"no module '{error.name}' for the network {module}:{name}") from error
    try:
        return getattr(found, name)
    except AttributeError as error:
        raise ModelError(f"{module} ({found.__file__}) has no '{name}'") from error


def _call(function: Any, known: dict[str, Any]) -> Any:
    """Give a function what it names of the known."""
    taken = inspect.signature(function).parameters
    return function(**{name: value for name, value in known.items() if name in taken})


def _torchvision(name: str, classes: int) -> nn.Module:
    from torchvision.models import get_model  # 1.7 s, which only its users pay

    try:
        return get_model(name, weights=None, num_classes=classes)  # type: ignore[no-any-return]
    except ValueError as error:
        raise ModelError(f"torchvision:{name}: {error}") from error
