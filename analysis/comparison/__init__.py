"""A sweep compared with published numbers: which cells match, whether they differ, in words, files and a figure."""
