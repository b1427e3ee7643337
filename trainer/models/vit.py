"""The thesis's vision transformer: 64 patches, width 256, 6 pre-norm blocks, a class token.

Initialised as torch.nn.MultiheadAttention and torch.nn.Linear, class token and positions from N(0, 1), by the study's
recipe.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.models.dropout import Dropout

PATCHES_PER_SIDE = 8
WIDTH = 256
HIDDEN = 512
HEADS = 8
LAYERS = 6


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Compute softmax(q k' / sqrt(d)) v; all (N, heads, T, d). Returns v's shape.

    On a CPU by plain products: the gradients of torch's fused attention are computed tile by tile there, twelve times
    slower for 65 tokens in bf16 (forward and backward of 128 images, two cores of a 2023 Xeon: 256 to 20 ms, n = 7).
    """
    if q.device.type != "cpu":
        return F.scaled_dot_product_attention(q, k, v)
    n, heads, tokens, depth = q.shape
    q, k, v = (part.reshape(n * heads, tokens, depth) for part in (q, k, v))
    nothing = q.new_zeros(()).expand(n * heads, tokens, tokens)
    scores = torch.baddbmm(nothing, q, k.transpose(1, 2), beta=0, alpha=depth**-0.5)
    return torch.bmm(scores.softmax(-1), v).view(n, heads, tokens, depth)


class SelfAttention(nn.Module):
    """Multi-head self-attention without dropout; does not return the weights."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.qkv.weight)
        nn.init.zeros_(self.qkv.bias)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Mix the tokens of x: (N, T, width). Returns the same shape."""
        n, tokens, width = x.shape
        q, k, v = self.qkv(x).view(n, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        mixed = attend(q, k, v)
        return self.out(mixed.transpose(1, 2).reshape(n, tokens, width))  # type: ignore[no-any-return]


class Block(nn.Module):
    """LayerNorm, attention, residual; LayerNorm, MLP, residual."""

    def __init__(self, width: int, hidden: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = SelfAttention(width, heads)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden), nn.GELU(), Dropout(dropout), nn.Linear(hidden, width), Dropout(dropout)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x))
        return x + self.mlp(self.mlp_norm(x))  # type: ignore[no-any-return]


class VisionTransformer(nn.Module):
    """A vision transformer on 64 patches: 4×4 pixels of a 32×32 image, 8×8 of a 64×64 one."""

    def __init__(self, classes: int, image_size: int, dropout: float) -> None:
        super().__init__()
        if image_size % PATCHES_PER_SIDE:
            raise ValueError(f"image size {image_size} does not divide into {PATCHES_PER_SIDE} patches a side")
        self.patch_size = image_size // PATCHES_PER_SIDE
        self.embedding = nn.Linear(3 * self.patch_size**2, WIDTH)
        self.class_token = nn.Parameter(torch.randn(1, 1, WIDTH))
        self.positions = nn.Parameter(torch.randn(1, 1 + PATCHES_PER_SIDE**2, WIDTH))
        self.dropout: nn.Module = Dropout(dropout)
        self.blocks = nn.Sequential(*(Block(WIDTH, HIDDEN, HEADS, dropout) for _ in range(LAYERS)))
        self.head = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, classes))

    def forward(self, images: Tensor) -> Tensor:
        """Score the classes. images: (N, 3, S, S) float. Returns (N, classes)."""
        n = images.shape[0]
        side, patch = PATCHES_PER_SIDE, self.patch_size
        patches = images.reshape(n, 3, side, patch, side, patch).permute(0, 2, 4, 1, 3, 5).reshape(n, side * side, -1)
        tokens = torch.cat([self.class_token.expand(n, -1, -1), self.embedding(patches)], dim=1)
        tokens = self.blocks(self.dropout(tokens + self.positions))
        return self.head(tokens[:, 0])  # type: ignore[no-any-return]
