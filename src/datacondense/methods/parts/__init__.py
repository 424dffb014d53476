"""What methods share: initial images, loops, optimisers of images, networks of the whole set, features."""
