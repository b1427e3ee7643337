"""The two networks are the study's: size, mathematics, initial weights, cost."""

import math

import pytest
import torch
import torch.nn.functional as F
from rounding import VIT_LAYERS, rounding
from scipy.stats import kstest
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import resnet18
from training_fixtures import make_trainer

from trainer.models.build import build_model, parameter_count
from trainer.models.catalog import ARCHITECTURES
from trainer.models.convolution import CompactConv2d
from trainer.models.dropout import Dropout
from trainer.models.vit import HEADS, HIDDEN, LAYERS, WIDTH, Block, SelfAttention, VisionTransformer, attend
from trainer.records.recipe import Recipe


def randomise(module: nn.Module) -> None:
    """Set every parameter to a value of its own, biases and norms too, so that a mix-up shows."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)


@pytest.mark.parametrize(
    ("architecture", "classes", "image_size", "expected"),
    [
        ("resnet18", 10, 32, 11_181_642),
        ("resnet18", 200, 64, 11_279_112),
        ("vit", 10, 32, 3_195_146),
        ("vit", 200, 64, 3_280_840),
    ],
)
def test_the_networks_have_the_thesis_s_parameter_counts(
    architecture: str, classes: int, image_size: int, expected: int
) -> None:
    """Table 4.1 and the recipe's exact numbers, whatever the number of replicas."""
    for replicas in (1, 4):
        model = build_model(architecture, classes, image_size, Recipe(replicas=replicas))
        assert parameter_count(model) == expected


def test_attention_is_torch_s_multi_head_attention() -> None:
    """With the same weights, SelfAttention and nn.MultiheadAttention give the same output and gradient."""
    torch.manual_seed(0)
    ours = SelfAttention(WIDTH, HEADS).double()
    randomise(ours)
    reference = nn.MultiheadAttention(WIDTH, HEADS, dropout=0.0, batch_first=True).double()
    copy_attention(ours, reference)
    x = torch.randn(3, 65, WIDTH, dtype=torch.double, requires_grad=True)
    y = x.detach().clone().requires_grad_()
    expected, _ = reference(y, y, y, need_weights=False)
    found = ours(x)
    torch.testing.assert_close(found, expected)
    found.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(x.grad, y.grad)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_attention_by_products_is_the_fused_one(precision: str) -> None:
    """In the format of training, value and gradients are those of scaled_dot_product_attention up to rounding."""
    torch.manual_seed(0)
    dtype, terms = {"fp32": (torch.float32, 65), "bf16": (torch.bfloat16, 1)}[precision]
    drawn = torch.randn(3, 4, HEADS, 65, WIDTH // HEADS).to(dtype)
    answers = []
    for attention in (attend, F.scaled_dot_product_attention):
        qkv = drawn.clone().requires_grad_()
        mixed = attention(*qkv)
        mixed.backward(torch.linspace(-1, 1, mixed.numel()).view(mixed.shape).to(dtype))
        answers.append((mixed, qkv.grad))
    for found, expected in zip(*answers, strict=True):
        tolerance = rounding(dtype, terms=terms, depth=4, scale=expected.abs().max().item())
        torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_draws_as_torch_s_does(dtype: torch.dtype) -> None:
    """A share p of zeros wherever one looks, the rest scaled so that the mean stays, anew each call, by the seed."""
    layer, count = Dropout(0.2), 1_000_003
    x = torch.ones(count, dtype=dtype, requires_grad=True)
    torch.manual_seed(5)
    first, second = layer(x), layer(x)
    torch.manual_seed(5)
    assert torch.equal(layer(x), first)
    assert first.detach().unique().tolist() == pytest.approx([0.0, 1.25], rel=2**-16)  # a draw has 16 bits
    deviation = math.sqrt(0.2 * 0.8 / count)
    zeros = first == 0
    assert zeros.double().mean().item() == pytest.approx(0.2, abs=5 * deviation)
    assert (zeros & (second == 0)).double().mean().item() == pytest.approx(0.04, abs=5 * deviation)
    for lag in (1, 2, 3, 4, 512):  # four draws come from one random number, and must not show it
        both = (zeros[:-lag] & zeros[lag:]).double().mean().item()
        assert both == pytest.approx(0.04, abs=5 * deviation), lag
    first.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, first.detach())
    assert layer.eval()(x) is x
    assert Dropout(0.0)(x) is x


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize(
    ("size", "kernel", "stride"), [(1, 3, 1), (2, 3, 1), (2, 3, 2), (1, 3, 2), (3, 5, 1), (3, 5, 2)]
)
def test_a_convolution_of_a_small_map_is_torch_s(
    size: int, kernel: int, stride: int, layout: torch.memory_format, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The matrix product and nn.Conv2d give the same maps and gradients, and the product is what is executed."""
    torch.manual_seed(0)
    ours = CompactConv2d(6, 10, kernel, stride).double()
    plain = nn.Conv2d(6, 10, kernel, stride, padding=kernel // 2, bias=False).double()
    plain.load_state_dict(ours.state_dict())
    x = torch.randn(4, 6, size, size, dtype=torch.double).contiguous(memory_format=layout).requires_grad_()
    y = x.detach().clone().requires_grad_()
    expected = plain(y)
    monkeypatch.setattr(nn.Conv2d, "forward", lambda *_: pytest.fail("executed as a convolution"))
    found = ours(x)
    torch.testing.assert_close(found, expected)
    weights = torch.randn_like(expected)
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(x.grad, y.grad)
    torch.testing.assert_close(ours.weight.grad, plain.weight.grad)


@pytest.mark.parametrize(("size", "kernel"), [(3, 3), (4, 3), (1, 1), (32, 7)])
def test_a_convolution_of_a_larger_map_is_left_to_torch(size: int, kernel: int) -> None:
    """A map of which every tap meets something gains nothing as a product."""
    torch.manual_seed(0)
    ours = CompactConv2d(3, 4, kernel)
    x = torch.randn(2, 3, size, size)
    assert torch.equal(ours(x), F.conv2d(x, ours.weight, padding=kernel // 2))


def copy_attention(source: SelfAttention, target: nn.MultiheadAttention) -> None:
    target.load_state_dict(
        {
            "in_proj_weight": source.qkv.weight,
            "in_proj_bias": source.qkv.bias,
            "out_proj.weight": source.out.weight,
            "out_proj.bias": source.out.bias,
        }
    )


def test_a_block_is_torch_s_pre_norm_encoder_layer() -> None:
    """LayerNorm, attention, residual; LayerNorm, Linear, GELU, Linear, residual: nn.TransformerEncoderLayer's."""
    torch.manual_seed(0)
    ours = Block(WIDTH, HIDDEN, HEADS, dropout=0.0).double()
    randomise(ours)
    reference = nn.TransformerEncoderLayer(
        WIDTH, HEADS, HIDDEN, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    ).double()
    copy_attention(ours.attention, reference.self_attn)
    for source, target in (
        (ours.attention_norm, reference.norm1),
        (ours.mlp_norm, reference.norm2),
        (ours.mlp[0], reference.linear1),
        (ours.mlp[3], reference.linear2),
    ):
        target.load_state_dict(source.state_dict())
    x = torch.randn(3, 65, WIDTH, dtype=torch.double)
    expected = reference(x)
    tolerance = rounding(x.dtype, terms=HIDDEN, depth=8, scale=expected.abs().max().item())
    torch.testing.assert_close(ours(x), expected, atol=tolerance, rtol=0)


def test_dropout_is_in_the_mlp_and_on_the_input_and_not_in_attention() -> None:
    """Training drops the recipe's share of the embedded input, of GELU's output and of the MLP's; attention nothing."""
    torch.manual_seed(0)
    model = VisionTransformer(10, 32, 0.2)
    dropped: dict[str, Tensor] = {}
    model.blocks[0].register_forward_pre_hook(lambda _, inputs: dropped.update(embedded=inputs[0]))
    block = model.blocks[3]
    block.mlp[3].register_forward_pre_hook(lambda _, inputs: dropped.update(hidden=inputs[0]))
    block.mlp.register_forward_hook(lambda *call: dropped.update(mlp=call[2]))
    model(torch.randn(8, 3, 32, 32))
    assert dropped.keys() == {"embedded", "hidden", "mlp"}
    for place, tensor in dropped.items():
        assert (tensor == 0).float().mean().item() == pytest.approx(0.2, abs=0.01), place
    x = torch.randn(2, 65, WIDTH)
    assert torch.equal(block.attention(x), block.attention(x))
    assert sum(module.p == 0.2 for module in model.modules() if isinstance(module, Dropout)) == 1 + 2 * LAYERS


@pytest.mark.parametrize(("image_size", "patch"), [(32, 4), (64, 8)])
def test_the_vit_scores_the_class_token_over_64_patches(image_size: int, patch: int) -> None:
    """Patches of 4 or 8 pixels in reading order behind the class token, positions added, LayerNorm + Linear on it."""
    torch.manual_seed(0)
    model = VisionTransformer(10, image_size, 0.2).eval().double()
    randomise(model)
    images = torch.randn(3, 3, image_size, image_size, dtype=torch.double)
    patches = F.unfold(images, patch, stride=patch).transpose(1, 2)
    assert patches.shape == (3, 64, 3 * patch * patch)
    tokens = torch.cat([model.class_token.expand(3, -1, -1), model.embedding(patches)], 1) + model.positions
    for block in model.blocks:
        tokens = block(tokens)
    norm, linear = model.head
    expected = linear(F.layer_norm(tokens[:, 0], (WIDTH,), norm.weight, norm.bias))
    tolerance = rounding(images.dtype, terms=HIDDEN, depth=VIT_LAYERS, scale=expected.abs().max().item())
    torch.testing.assert_close(model(images), expected, atol=tolerance, rtol=0)


def test_the_vit_begins_as_the_recipe_says() -> None:
    """Class token and positions are N(0, 1); attention begins as nn.MultiheadAttention, the rest as nn.Linear."""
    torch.manual_seed(0)
    model = VisionTransformer(10, 32, 0.2)
    assert kstest(model.positions.detach().flatten().numpy(), "norm").pvalue > 0.001
    assert kstest(model.class_token.detach().flatten().numpy(), "norm").pvalue > 0.001
    xavier = math.sqrt(6 / (WIDTH + 3 * WIDTH))
    for block in model.blocks:
        uniform(block.attention.qkv.weight, xavier)
        uniform(block.attention.out.weight, 1 / math.sqrt(WIDTH))
        assert not block.attention.qkv.bias.any()
        assert not block.attention.out.bias.any()
        uniform(block.mlp[0].weight, 1 / math.sqrt(WIDTH))
        uniform(block.mlp[3].weight, 1 / math.sqrt(HIDDEN))


def uniform(weight: Tensor, bound: float) -> None:
    """Require values that look drawn from U(-bound, bound)."""
    values = weight.detach().flatten().numpy()
    assert kstest(values, "uniform", args=(-bound, 2 * bound)).pvalue > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["resnet18", "vit"])
def test_the_seed_alone_fixes_the_initial_weights(architecture: str) -> None:
    """The same seed gives the same weights whatever was drawn before; another seed gives others."""
    torch.manual_seed(1)
    first = make_trainer(architecture, seed=42).model.state_dict()
    torch.manual_seed(2)
    again = make_trainer(architecture, seed=42).model.state_dict()
    other = make_trainer(architecture, seed=43).model.state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    differing = {name for name, tensor in first.items() if not torch.equal(tensor, other[name])}
    drawn = {name for name, tensor in first.items() if tensor.is_floating_point() and len(tensor.unique()) > 1}
    assert differing == drawn
    assert len(drawn) > 20


@pytest.mark.parametrize("image_size", [32, 64])
@pytest.mark.parametrize("architecture", ["resnet18", "vit"])
def test_the_cost_in_the_catalog_is_what_torch_counts(architecture: str, image_size: int) -> None:
    """forward_macs is within 2 % of torch's own count of the published network, which counts two operations a MAC."""
    model = build_model(architecture, 10, image_size, Recipe()).eval()
    if architecture == "resnet18":  # ours does without the taps that meet no pixel
        model = resnet18(num_classes=10).eval()
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, image_size, image_size))
    expected = counter.get_total_flops() / 2
    assert ARCHITECTURES[architecture].forward_macs(image_size) == pytest.approx(expected, rel=0.02)


def test_what_cannot_be_built_is_refused_by_name() -> None:
    """An unknown architecture and an image that does not divide into patches are errors that name them."""
    with pytest.raises(ValueError, match="unknown architecture 'resnet19'"):
        build_model("resnet19", 10, 32, Recipe())
    with pytest.raises(ValueError, match="image size 36 does not divide"):
        build_model("vit", 10, 36, Recipe())


@pytest.mark.slow
@pytest.mark.parametrize(("classes", "size"), [(10, 32), (200, 64)])
def test_resnet_18_is_torchvision_s(classes: int, size: int) -> None:
    """The same names and weights from the same seed, the same scores, gradients and running statistics: in double
    precision, where the order of a sum is no excuse."""
    torch.manual_seed(3)
    expected = resnet18(num_classes=classes)
    torch.manual_seed(3)
    ours = build_model("resnet18", classes, size, Recipe(replicas=1))
    assert list(ours.state_dict()) == list(expected.state_dict())
    assert all(torch.equal(ours.state_dict()[name], tensor) for name, tensor in expected.state_dict().items())
    ours, expected = ours.double(), expected.double()
    images = torch.randn(4, 3, size, size, dtype=torch.double)
    scores = [model(images) for model in (ours, expected)]
    torch.testing.assert_close(*scores)
    for score in scores:
        score.square().mean().backward()
    for (name, mine), theirs in zip(ours.named_parameters(), expected.parameters(), strict=True):
        assert mine.grad is not None
        torch.testing.assert_close(mine.grad, theirs.grad, msg=lambda words, name=name: f"{name}: {words}")
    torch.testing.assert_close(ours.state_dict(), expected.state_dict())
