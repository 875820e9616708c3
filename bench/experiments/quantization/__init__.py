"""Table 3: data-free quantization, each calibration source beside full precision."""
