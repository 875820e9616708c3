"""Tasks, their plan, the store, the executors. Knows no experiment and imports no torch."""
