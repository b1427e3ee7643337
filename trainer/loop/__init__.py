"""The training loop: what a run computes, on which device, step by step. No files, no signals."""
