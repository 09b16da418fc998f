"""Cryptography of attested predictions: proofs, models, CKKS. Knows nothing of ledgers or HTTP."""
