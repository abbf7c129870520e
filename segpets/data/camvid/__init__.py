"""CamVid, in the layouts in which it is distributed."""
