"""What an iteration costs: the cost half of Table 3, and Table 1."""
