"""Programs that print a table: accuracy, speed, and what the readers withstand."""
