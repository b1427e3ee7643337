"""The two architectures: facts without torch in `catalog`, networks in `build`, `replicas` and `vit`."""
