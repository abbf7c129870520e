"""The networks: one architecture a file, each read beside its paper.

A net is an `nn.Module` that takes a normalised float image (B, 3, H, W), with H and W of at least
32, to logits (B, C, H, W). Its attribute `stride` is the multiple to which it pads H and W. Its
constructor takes `num_classes`, and whatever else the paper leaves open, by keyword.

The nets of torchvision and segmentation_models_pytorch, in `lraspp`, `deeplabv3` and `smp`, are
imported from their files: their libraries take a second to load.
"""

from segpets.model.fcn import FCN8s as FCN8s
from segpets.model.pad import MIN_SIZE as MIN_SIZE
from segpets.model.pad import pad_to_multiple as pad_to_multiple
from segpets.model.segnet import SegNet as SegNet
from segpets.model.unet import UNet as UNet
from segpets.model.vit import ViT as ViT
