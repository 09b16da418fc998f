"""What operators do with Ethereum-like chains: anchors of the ledger's head. Needs the extra `evm`."""
