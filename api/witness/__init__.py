"""Witnesses over HTTP (C2SP tlog-witness): `api.witness.client` asks one, `api.witness.app` is one."""
