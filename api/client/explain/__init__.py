"""What a bundle proves, by whom it is signed and what it does not say, in plain words, for its reader."""
