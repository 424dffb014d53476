"""What people look at: pictures and dataset cards."""
