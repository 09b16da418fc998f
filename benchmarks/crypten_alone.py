"""CrypTen's own prediction, as its tutorials make it: `crypten_alone.py RANK FOLDER`, two processes of them.

No product code: CrypTen's defaults throughout. Fixed-point numbers with 16 bits after the point, correlated randomness
from its default provider (the first party is trusted with it), torch's generators, gloo between the two processes. The
clinic (rank 0) has the records, the owner (rank 1) the model; both are encrypted, the model runs, the clinic gets the
output. Nobody can check anything afterwards.

crypten.nn.from_pytorch, the tutorials' way to a model, needs an ONNX exporter that this torch does not have any more,
so the same crypten.nn layers are put together here.
"""

from __future__ import annotations

import os
import sys
import types
import warnings
from pathlib import Path

import numpy as np
from children import serve

# CrypTen's ONNX converter, which is not used here, imports a module that torch no longer has.
sys.modules.setdefault("torch.onnx.symbolic_registry", types.ModuleType("torch.onnx.symbolic_registry"))
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import crypten
    import torch

CLINIC, OWNER = 0, 1


class Party:
    """One of the two parties. Arrays of the other party's are zeros here: only their shapes are known."""

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self.records = torch.empty(0)
        self.layers: list[tuple[torch.Tensor, torch.Tensor]] = []

    def open(self, folder: str) -> None:
        """Take up the work in `folder`."""
        with np.load(Path(folder) / "float.npz") as arrays:
            records = arrays["records"]
            layers = [(arrays[f"W{k}"], arrays[f"b{k}"]) for k in range((len(arrays.files) - 1) // 2)]
        if self.rank != CLINIC:
            records = np.zeros_like(records)
        if self.rank != OWNER:
            layers = [(np.zeros_like(W), np.zeros_like(b)) for W, b in layers]
        self.records = torch.from_numpy(records.astype(np.float32))
        self.layers = [
            (torch.from_numpy(W.astype(np.float32)), torch.from_numpy(b.astype(np.float32))) for W, b in layers
        ]

    def model(self) -> crypten.nn.Module:
        """The model in clear: the owner's own, of the other party only the architecture."""
        modules: list[crypten.nn.Module] = []
        for weights, bias in self.layers:
            modules += [crypten.nn.ReLU()] if modules else []
            linear = crypten.nn.Linear(weights.shape[1], weights.shape[0])
            linear.set_parameter("weight", weights)
            linear.set_parameter("bias", bias)
            modules.append(linear)
        return crypten.nn.Sequential(*modules)

    def predict(self) -> list[float] | None:
        """Encrypt model and records, run, reveal to the clinic: one output a patient."""
        with crypten.no_grad():
            model = self.model().encrypt(src=OWNER)
            model.eval()
            records = crypten.cryptensor(self.records, src=CLINIC)
            output = model(records).get_plain_text(dst=CLINIC)
        return None if self.rank != CLINIC else output[:, 0].tolist()

    def count_bytes(self) -> float:
        """What this party sends and receives in one prediction, as CrypTen counts it."""
        crypten.cfg.communicator.verbose = True
        crypten.reset_communication_stats()
        self.predict()
        crypten.cfg.communicator.verbose = False
        return float(crypten.communicator.get().comm_bytes)


def main() -> None:
    rank, folder = int(sys.argv[1]), Path(sys.argv[2])
    os.environ |= {
        "RANK": str(rank),
        "WORLD_SIZE": "2",
        "RENDEZVOUS": f"file://{(folder / 'rendezvous').resolve()}",
        "DISTRIBUTED_BACKEND": "gloo",
        "GLOO_SOCKET_IFNAME": "lo",
    }
    crypten.init()
    party = Party(rank)
    serve({"open": party.open, "predict": party.predict, "count_bytes": party.count_bytes})


if __name__ == "__main__":
    main()
