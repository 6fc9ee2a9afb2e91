"""Memory: how exactly the allocator replay repeats recordings, and what reading them costs."""
