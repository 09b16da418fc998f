"""CKKS ciphertexts: keys, packing, canonical form, evaluation and its proof."""
