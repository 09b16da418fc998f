"""Two-party computation with one joint proof: circuits, shares, the dealer's randomness, CrypTen, the session."""
