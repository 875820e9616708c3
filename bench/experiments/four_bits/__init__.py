"""Four bits: data-free quantization by the source of images, the quantizer and the bit-widths."""
