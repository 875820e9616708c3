"""What a quantized model is worth as a file: its answers, its size, its speed."""
