"""Mutation testing: how many small faults, drawn at random from the code, the fast tests notice (nox -s mutants)."""
