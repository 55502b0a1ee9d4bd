#!/usr/bin/env python3
"""Writes the safetensors files the reader is tested with: one valid file written by Hugging Face's
own library, and the seeds of the fuzzer. Needs torch and safetensors."""
import argparse
import json
import struct
from pathlib import Path

import torch
from safetensors.torch import save_file


def raw_file(header, data: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(dtype, shape, begin, end):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def seeds():
    yield "empty", raw_file({}, b"")
    yield "scalar", raw_file({"s": entry("F32", [], 0, 4)}, bytes(4))
    yield "zero_elements", raw_file({"z": entry("F32", [0, 3], 0, 0)}, b"")
    yield "all_dtypes", raw_file(
        {"__metadata__": {"format": "pt"},
         "a": entry("F32", [2, 1], 0, 8), "b": entry("F16", [3], 8, 14),
         "c": entry("BF16", [1], 14, 16), "d": entry("F64", [1], 16, 24),
         "e": entry("I64", [1], 24, 32), "f": entry("I32", [1], 32, 36),
         "g": entry("U8", [2, 2], 36, 40)}, bytes(range(40)))
    yield "overlap", raw_file({"a": entry("U8", [4], 0, 4), "b": entry("U8", [4], 2, 6)}, bytes(6))
    yield "escaped_name", raw_file({"\u00e9\n\"": entry("U8", [1], 0, 1)}, b"x")
    yield "huge_length", struct.pack("<Q", 2**63) + b"{}"
    yield "array", raw_file(b"[1, 2]", b"")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    here = Path(__file__).resolve().parent
    parser.add_argument("--out", type=Path, default=here / "data")
    parser.add_argument("--corpus", type=Path, default=here.parent / "fuzz/corpus/safetensors")
    args = parser.parse_args()
    save_file(
        {
            "layer.weight": torch.arange(6, dtype=torch.float32).reshape(2, 3) / 8 - 0.25,
            "layer.half": torch.tensor([1.0, -2.5, 65504.0, 6e-8], dtype=torch.float16),
            "layer.brain": torch.tensor([1.0, -3.140625, 2.0**127], dtype=torch.bfloat16),
            "wide": torch.tensor([[0.1], [1e-3]], dtype=torch.float64),
            "count": torch.tensor(7, dtype=torch.int64),
            "ids": torch.tensor([-1, 2], dtype=torch.int32),
            "bytes": torch.tensor([1, 2, 255], dtype=torch.uint8),
            "nothing": torch.zeros(0, 4),
        },
        args.out / "every_dtype.safetensors",
        metadata={"format": "pt", "note": "h\u00e9llo"},
    )
    args.corpus.mkdir(parents=True, exist_ok=True)
    for name, data in seeds():
        (args.corpus / name).write_bytes(data)


if __name__ == "__main__":
    main()
