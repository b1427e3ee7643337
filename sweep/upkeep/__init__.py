"""What is wrong on disk, and what is no longer needed there."""
