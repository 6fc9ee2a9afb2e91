"""Live measurement of a training or of the machine below it; nothing here is loaded before it is asked for."""
