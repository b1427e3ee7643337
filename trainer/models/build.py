"""Build an architecture's network by name or reference."""

from functools import partial

from torch import nn

from trainer.models.catalog import is_reference
from trainer.models.reference import load_model
from trainer.models.replicas import ReplicaBatchNorm2d
from trainer.models.resnet import ResNet18
from trainer.models.vit import VisionTransformer
from trainer.records.recipe import Recipe


def build_model(architecture: str, classes: int, image_size: int, recipe: Recipe) -> nn.Module:
    """Build the network with torch's current random state.

    Raises ValueError for an unknown architecture, ModelError for a reference to none that can be trained.

    ResNet-18 is torchvision's, including its 7×7 stem, with batch statistics per replica of the recipe.
    """
    match architecture:
        case "resnet18":
            return ResNet18(classes, partial(ReplicaBatchNorm2d, replicas=recipe.replicas))
        case "vit":
            return VisionTransformer(classes, image_size, recipe.dropout)
        case _ if is_reference(architecture):
            return load_model(architecture, classes, image_size, recipe.dropout)
        case _:
            raise ValueError(f"unknown architecture '{architecture}'")


def parameter_count(model: nn.Module) -> int:
    """Count the trainable parameters."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
