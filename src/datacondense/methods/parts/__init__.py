"""What methods share: initial images, loops, image optimisers, real batches, networks, features."""
