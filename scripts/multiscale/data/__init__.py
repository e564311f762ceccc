"""Training data: files of any kind as one long sequence of bytes."""
