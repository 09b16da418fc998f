"""What the ledger puts on Ethereum-like chains, where its operator cannot take it back.

contracts/*.vy   the contracts (Vyper), with what they compile to beside them (*.json)
evm              a chain, a contract, a transaction: the only module that imports web3 (extra `evm`)

Importing this package needs no web3; importing `ledger.anchors.evm` without it raises MissingDependency.
"""
