"""What the background of images says of their class."""
