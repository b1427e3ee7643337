"""The two datasets: facts, preparation into arrays (no torch), subsets, augmentation (torch)."""
