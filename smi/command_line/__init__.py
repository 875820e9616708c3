"""The shell commands `smi quantize | invert | export | show`."""
