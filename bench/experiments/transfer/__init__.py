"""Table 4: knowledge transfer without data."""
