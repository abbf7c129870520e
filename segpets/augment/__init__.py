"""Augmentation: image and mask change together, as a pure function of the two and a seed.

An augmentation is called as `augment(image, mask, seed=seed)` with an image, (C, H, W), and a mask,
uint8 (H, W), and returns such a pair, of any size. The image is uint8, or float32 in [0, 1] where
`data.range` is given:

- The same image, mask and seed give the same pair, bit by bit, in any process and with any number
  of threads or workers. The global random streams of torch, NumPy and `random` neither matter nor
  change, so that dropout in the same process is not disturbed.
- Masks are resampled by nearest neighbour; what comes in from outside of the picture is 255 there.
- The inputs stay as they are, and the results share no memory with them.

Each backend is imported from its own file, because its library takes a second to load.
"""
