"""What recording costs, and whether its phases agree with timers written into the loop."""
