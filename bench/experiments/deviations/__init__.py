"""What each of the published code's deviations from the paper does to a quantized model."""
