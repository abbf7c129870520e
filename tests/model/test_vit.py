import pytest
import torch
from torch import nn

from segpets.build.cost import parameters
from segpets.model.vit import Block, ViT


def small(**changes: int | float | tuple[int, int]) -> ViT:
    arguments = {"image_size": 64, "patch": 16, "width": 32, "depth": 2, "heads": 4, "dropout": 0.0}
    return ViT(num_classes=3, **{**arguments, **changes})


def test_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        assert round(parameters(ViT(num_classes=3, image_size=128)) / 1e6, 2) == 86.28


@pytest.mark.parametrize("training", [False, True])
def test_a_block_is_pytorch_s_encoder_layer(training: bool) -> None:
    torch.manual_seed(0)
    block = Block(width=32, heads=4, dropout=0.0).train(training)
    oracle = nn.TransformerEncoderLayer(
        32, 4, 128, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    ).train(training)
    oracle.self_attn.in_proj_weight.data = block.attention.qkv.weight.data
    oracle.self_attn.in_proj_bias.data = block.attention.qkv.bias.data.normal_()
    oracle.self_attn.out_proj.load_state_dict(block.attention.out.state_dict())
    oracle.linear1.load_state_dict(block.mlp[0].state_dict())
    oracle.linear2.load_state_dict(block.mlp[3].state_dict())
    oracle.norm1.load_state_dict(block.norm1.state_dict())
    oracle.norm2.load_state_dict(block.norm2.state_dict())
    x = torch.randn(2, 9, 32)
    torch.testing.assert_close(block(x), oracle(x), rtol=1e-4, atol=1e-5)


def test_tokens_are_folded_back_to_where_they_were_cut() -> None:
    # Without blocks, positions and learned projections the net must give the image itself.
    net = small(patch=8, width=8 * 8 * 3, depth=0, image_size=(40, 64)).eval()
    for linear in (net.embed, net.head):
        nn.init.eye_(linear.weight)
        nn.init.zeros_(linear.bias)
    nn.init.zeros_(net.positions)
    image = torch.randn(2, 3, 37, 61)
    with torch.no_grad():
        torch.testing.assert_close(net(image), image, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("image_size", "grid"), [(64, (4, 4)), ((64, 48), (4, 3)), ((65, 33), (5, 3))]
)
def test_the_grid_of_positions_covers_the_training_images(
    image_size: int | tuple[int, int], grid: tuple[int, int]
) -> None:
    assert small(image_size=image_size).positions.shape == (*grid, 32)


def test_positions_are_taken_as_they_are_at_the_size_of_training() -> None:
    net = small(image_size=(64, 48))
    assert torch.equal(net.positions_of(4, 3), net.positions.reshape(12, 32))


def test_positions_are_stretched_row_by_row_at_another_size() -> None:
    net = small(image_size=(64, 48))
    with torch.no_grad():
        net.positions[:] = torch.arange(4.0)[:, None, None]  # only the row is known
    stretched = net.positions_of(8, 9).detach().reshape(8, 9, 32)
    torch.testing.assert_close(stretched, stretched[:, :1, :1].expand(-1, 9, 32))
    assert (stretched[1:, 0, 0] > stretched[:-1, 0, 0]).all()
    # Twice the rows: the middle of the ramp is crossed in steps of about half a row.
    assert stretched[4, 0, 0] - stretched[3, 0, 0] == pytest.approx(0.5, abs=0.2)


@pytest.mark.slow
def test_a_graph_exported_for_any_size_agrees_at_the_size_of_training_too() -> None:
    torch.manual_seed(0)
    net = small(depth=1).eval()
    rows, columns = torch.export.Dim("rows"), torch.export.Dim("columns")
    program = torch.export.export(
        net, (torch.randn(1, 3, 64, 64),), dynamic_shapes=({2: 16 * rows, 3: 16 * columns},)
    )
    for size in ((64, 64), (96, 48)):
        image = torch.randn(1, 3, *size)
        torch.testing.assert_close(program.module()(image), net(image))


def test_dropout_acts_in_training_only() -> None:
    net = small(dropout=0.5)
    image = torch.randn(1, 3, 64, 64)
    assert not torch.equal(net.train()(image), net(image))
    assert torch.equal(net.eval()(image), net(image))


def test_heads_that_can_t_share_the_width_are_refused() -> None:
    with pytest.raises(ValueError, match=r"model\.width=32 .* model\.heads=5"):
        small(heads=5)
