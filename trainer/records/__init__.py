"""What a run leaves on disk: files and their schemas, who owns a run's folder. No torch, so that all may read them."""
