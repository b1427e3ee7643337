"""A sweep beside published numbers: what is compared with what, whether it differs, in words, files and a figure."""
