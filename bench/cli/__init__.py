"""What the commands share: options, progress, what is printed; and how bench itself scales."""
