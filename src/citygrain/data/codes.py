"""Codes of windows, which are encoded once and kept: latent models train on them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from citygrain.spec import Conditions
from citygrain.support.files import write_atomically


class CodeBatch(NamedTuple):
    """Codes `(B, …)` of layouts, and the layouts' measured conditions."""

    code: Tensor
    conditions: Conditions


class CodeBank(Dataset[CodeBatch]):
    """N codes and their conditions in memory. Index *i* is code `i % N`, so that every index is one.

    Parameters
    ----------
    code
        `(N, …)`: numbers in half precision, which batches hold in single precision, or tokens, which are whole numbers.
    conditions
        The N conditions that were measured on the windows.
    """

    def __init__(self, code: Tensor, conditions: Conditions) -> None:
        self.code = code
        self.conditions = conditions

    def __len__(self) -> int:
        return len(self.code)

    def __getitems__(self, indices: Sequence[int]) -> CodeBatch:
        """Gather a whole batch at once."""
        index = torch.as_tensor(indices) % len(self.code)
        code = self.code[index]
        return CodeBatch(code.float() if code.is_floating_point() else code.long(), self.conditions[index])

    @classmethod
    def build(
        cls,
        path: Path,
        key: dict[str, Any],
        windows: int,
        encode: Callable[[Sequence[int]], CodeBatch],
        progress: Callable[[int], None],
    ) -> None:
        """Encode windows 0 … `windows` − 1 and keep their codes at `path`; codes of the same `key` are not made again.

        Parameters
        ----------
        path
            A `.pt` file of tensors; written whole or not at all.
        key
            All that the codes depend on, plain.
        windows
            How many windows are encoded.
        encode
            Returns codes and conditions of the windows of the given indices.
        progress
            Called after each batch with its number of windows.
        """
        digest = fingerprint(key)
        if path.is_file() and torch.load(path, weights_only=True, mmap=True)["key"] == digest:
            return
        codes, conditions = [], []
        for start in range(0, windows, 256):
            batch = encode(range(start, min(start + 256, windows)))
            code = batch.code
            kept = (
                torch.float16 if code.is_floating_point() else code.dtype if code.dtype == torch.int16 else torch.int32
            )
            codes.append(code.to(kept).cpu())
            conditions.append(batch.conditions.to("cpu"))
            progress(len(codes[-1]))
        joined = Conditions.cat(conditions)
        with write_atomically(path) as temporary:
            parts = {f.name: getattr(joined, f.name) for f in fields(Conditions)}
            torch.save({"key": digest, "code": torch.cat(codes), **parts}, temporary)

    @classmethod
    def open(cls, path: Path) -> CodeBank:
        """Open the file that `build` has written."""
        content = torch.load(path, weights_only=True)
        return cls(content["code"], Conditions(**{f.name: content[f.name] for f in fields(Conditions)}))


def fingerprint(plain: Any) -> str:
    """Return a hash of plain values, the same in every process."""
    return hashlib.sha256(json.dumps(plain, sort_keys=True, default=str).encode()).hexdigest()
