"""What choosing other patches, or stopping at other times, does to quantization and to transfer."""
