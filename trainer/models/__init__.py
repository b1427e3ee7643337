"""The architectures: names and costs in `catalog` (no torch), the networks in `build`, `resnet` and `vit`."""
