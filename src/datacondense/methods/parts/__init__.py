"""What methods share: initial images, batches, networks and pools of them, image optimisers, features."""
