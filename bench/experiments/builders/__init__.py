"""From one cell of a grid to its tasks: what experiments share."""
