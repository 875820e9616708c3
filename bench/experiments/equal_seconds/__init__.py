"""Knowledge transfer where every method's pool takes as long to invert."""
