"""What methods share: initial images, optimisers of images, networks trained on the whole set, features."""
