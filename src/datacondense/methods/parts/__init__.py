"""What methods share: initial images, loops, image optimisers, whole-set networks, features."""
