"""What methods share: initial images, loops, optimisers of images, real batches, networks, features."""
