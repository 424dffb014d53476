"""What methods share: initial images, loops, optimisers of images, networks trained on whole sets, features."""
