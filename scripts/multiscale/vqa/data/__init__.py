"""Training data for visual questions: packed rows, shards of them, and CLEVR's own folders."""
