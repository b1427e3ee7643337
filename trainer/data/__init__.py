"""The datasets: catalogue, preparation into arrays and subsets (no torch), augmentation (torch)."""
