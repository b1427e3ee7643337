"""What would go wrong before a sweep goes anywhere."""
