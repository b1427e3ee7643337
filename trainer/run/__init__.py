"""One run's life: refused, left alone, or taken, trained and said how it ended."""
