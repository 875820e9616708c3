"""The reproducibility suite: declarative grids -> plan -> tasks -> records -> tables. Holds no method of its own."""
