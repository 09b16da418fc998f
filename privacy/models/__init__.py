"""Public schemas, linear models, quantisation and certificates about committed weights."""
