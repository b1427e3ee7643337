"""The architectures: names and costs in `catalog` (no torch), networks in `build`, `resnet`, `vit` and `reference`."""
