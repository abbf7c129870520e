import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from segpets.model.pad import continued, pad_to_multiple


def test_the_last_row_and_column_are_repeated() -> None:
    image = torch.rand(1, 2, 33, 34)
    padded = pad_to_multiple(image, 4)
    assert padded.shape == (1, 2, 36, 36)
    assert torch.equal(padded[..., :33, :34], image)
    assert torch.equal(padded[..., 33:, :34], image[..., 32:, :].expand(-1, -1, 3, -1))
    assert torch.equal(padded[..., 34:], padded[..., 33:34].expand(-1, -1, -1, 2))


def test_it_stays_on_its_device() -> None:
    """A GPU is played by tensors without content, which refuse those of a CPU."""
    with FakeTensorMode():
        image = torch.empty(3, 5, 6, device="cuda")
        assert continued(image, 8, 8).device.type == "cuda"


def test_an_image_that_fits_is_returned_itself() -> None:
    image = torch.rand(1, 3, 32, 48)
    assert pad_to_multiple(image, 16) is image


def test_channels_last_stays() -> None:
    image = torch.rand(2, 3, 33, 47).contiguous(memory_format=torch.channels_last)
    assert pad_to_multiple(image, 16).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("size", [(31, 32), (32, 31), (16, 16)])
def test_a_small_image_is_refused_with_its_size(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=f"{size[0]}x{size[1]}.*32x32.*data.size"):
        pad_to_multiple(torch.rand(1, 3, *size), 4)
