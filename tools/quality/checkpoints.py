"""Reading and writing small Hugging Face folders with one model.safetensors. Needs numpy and safetensors."""
import json
import shutil

import numpy as np
from safetensors.numpy import save_file


def read(path):
    """All tensors as fp32; numpy knows no bf16, so its bits are widened by hand."""
    raw = path.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:8 + size])
    tensors = {}
    for name, info in header.items():
        if name == "__metadata__":
            continue
        begin, end = (8 + size + at for at in info["data_offsets"])
        if info["dtype"] == "BF16":
            words = np.frombuffer(raw[begin:end], np.uint16).astype(np.uint32) << 16
            values = words.view(np.float32)
        else:
            values = np.frombuffer(raw[begin:end], {"F32": np.float32, "F16": np.float16}[info["dtype"]])
        tensors[name] = values.astype(np.float32).reshape(info["shape"])
    return tensors


def write(source, out, config, tensors):
    """Folder `out` with these tensors, in fp32, and this config; all other files are those of folder `source`."""
    out.mkdir(parents=True, exist_ok=True)
    for file in source.iterdir():
        if file.name != "model.safetensors" and file.is_file():
            shutil.copy(file, out / file.name)
    config["torch_dtype"] = "float32"
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
