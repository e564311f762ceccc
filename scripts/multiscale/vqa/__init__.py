"""Visual question answering: images and text as one stream of bytes."""
