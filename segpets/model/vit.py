"""Vision Transformer for segmentation.

An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale. Alexey Dosovitskiy,
Lucas Beyer, Alexander Kolesnikov, Dirk Weissenborn, Xiaohua Zhai, Thomas Unterthiner, Mostafa
Dehghani, Matthias Minderer, Georg Heigold, Sylvain Gelly, Jakob Uszkoreit, Neil Houlsby, 2020,
arXiv:2010.11929.

What we changed, and why:

- No class token: every token is projected to the logits of its own patch, as in the linear decoder
  of Segmenter (Robin Strudel, Ricardo Garcia, Ivan Laptev, Cordelia Schmid, 2021,
  arXiv:2105.05633), but to each pixel of the patch in place of one value for all of it.
- A BatchNorm on the image itself, as in the SegNet beside: trained from scratch, the net learns its
  own normalisation.
- No norm behind the last block. With it the net would have 86.29 M parameters at 128 x 128 and
  three classes; without it it has the 86.28 M of the published segmentation recipe it follows.
- Images of another size than the training's are taken too: positions are interpolated as the paper
  does for fine-tuning, bicubically.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segpets.model.narrow import batch_norm
from segpets.model.pad import pad_to_multiple


class Attention(nn.Module):
    """Every token asks all tokens, once per head."""

    def __init__(self, *, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (B, T, width) to as many."""
        batch, tokens, width = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # each (B, heads, T, width / heads)
        x = F.scaled_dot_product_attention(query, key, value)
        x = x.transpose(1, 2).reshape(batch, tokens, width)
        mixed: Tensor = self.out(x)
        return mixed


class Block(nn.Module):
    """Attention, then a two-layer perceptron, each behind a norm and beside a shortcut.

    Dropout follows every dense layer except the one to query, key and value, as in the paper.
    """

    def __init__(self, *, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width=width, heads=heads)
        self.dropout = nn.Dropout(dropout)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(4 * width, width),
            nn.Dropout(dropout),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (B, T, width) to as many."""
        x = x + self.dropout(self.attention(self.norm1(x)))
        x = x + self.mlp(self.norm2(x))
        return x


class ViT(nn.Module):
    """Patches to tokens, a stack of blocks, tokens back to patches of logits.

    Args:
        num_classes: C of the logits.
        in_channels: Channels of the image.
        image_size: Height and width of the training images, or one number for both: it gives the
            grid of the learned positions.
        patch: Height and width of a patch, in pixels.
        width: Channels of a token.
        depth: Number of blocks.
        heads: Attention heads; they share the width.
        dropout: Probability that a value is dropped in training.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        image_size: int | Sequence[int],
        in_channels: int = 3,
        patch: int = 16,
        width: int = 768,
        depth: int = 12,
        heads: int = 8,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        if width % heads != 0:
            raise ValueError(
                f"model.width={width} can't be shared by model.heads={heads}: "
                f"set one to a multiple of the other"
            )
        height, breadth = (image_size,) * 2 if isinstance(image_size, int) else image_size
        self.stride = patch
        self.num_classes = num_classes
        self.norm = nn.BatchNorm2d(in_channels)
        self.embed = nn.Linear(patch * patch * in_channels, width)
        self.positions = nn.Parameter(torch.empty(-(-height // patch), -(-breadth // patch), width))
        nn.init.trunc_normal_(self.positions, std=0.02)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.Sequential(
            *(Block(width=width, heads=heads, dropout=dropout) for _ in range(depth))
        )
        self.head = nn.Linear(width, patch * patch * num_classes)

    def positions_of(self, rows: int, columns: int) -> Tensor:
        """Stretch the learned positions over a grid of patches: (rows * columns, width)."""
        positions: Tensor = self.positions  # (rows, columns, width) of the training images
        # A graph exported for any size can't ask which size it gets: it always interpolates.
        if isinstance(rows, torch.SymInt) or positions.shape[:2] != (rows, columns):
            grid = positions.permute(2, 0, 1)[None]  # (1, width, rows, columns)
            grid = F.interpolate(grid, size=(rows, columns), mode="bicubic", align_corners=False)
            positions = grid[0].permute(1, 2, 0)
        return positions.reshape(rows * columns, -1)

    def forward(self, image: Tensor) -> Tensor:
        """Map a normalised image (B, in_channels, H, W) to logits (B, C, H, W)."""
        height, width = image.shape[-2:]
        x = batch_norm(self.norm, pad_to_multiple(image, self.stride))
        batch, channels, patch = x.shape[0], x.shape[1], self.stride
        rows, columns = x.shape[-2] // patch, x.shape[-1] // patch

        x = x.reshape(batch, channels, rows, patch, columns, patch)
        x = x.permute(0, 2, 4, 3, 5, 1).reshape(batch, rows * columns, patch * patch * channels)
        x = self.dropout(self.embed(x) + self.positions_of(rows, columns))  # (B, T, width)
        x = self.blocks(x)  # (B, T, width)

        x = self.head(x)  # (B, T, patch * patch * C)
        x = x.reshape(batch, rows, columns, patch, patch, self.num_classes)
        x = x.permute(0, 5, 1, 3, 2, 4)  # (B, C, rows, patch, columns, patch)
        logits: Tensor = x.reshape(batch, self.num_classes, rows * patch, columns * patch)
        return logits[..., :height, :width]
