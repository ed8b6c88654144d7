"""An adapter written into the weights that it was trained on: the result is an ordinary checkpoint.

    playhead train merge --adapter RUN/adapter --out DIR [--init CHECKPOINT]
    playhead ask --model DIR ...
"""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

from ..agent.policies.loading import ADAPTER_FILES, LoadOptions, load_checkpoint
from ..agent.profile import PROFILE_FILE, load_profile, save_profile
from ..core.errors import ModelError


def merge_adapter(adapter: Path, out: Path, init: str | None = None, dtype: str = "auto") -> Path:
    """Write base + adapter as a checkpoint folder, with processor and profile of the base; returns `out`.

    Args:
        init: the base; None for the one that the adapter names.
        dtype: of the weights written.

    Raises: ModelError: no adapter there, a base that cannot be had or does not fit, or `out` holds something.
    """
    if find_spec("peft") is None:
        raise ModelError("adapters need peft: pip install 'playhead[adapters]'")
    for name in ADAPTER_FILES:
        if not (adapter / name).is_file():
            raise ModelError(f"{adapter}: no adapter there ({' and '.join(ADAPTER_FILES)} are expected)")
    if out.exists() and any(out.iterdir()):
        raise ModelError(f"{out}: is not empty; choose another folder")
    from peft import PeftModel

    base = init or json.loads((adapter / ADAPTER_FILES[0]).read_text()).get("base_model_name_or_path")
    if not base:
        raise ModelError(f"{adapter}: does not say which checkpoint it belongs to; give it with --init")
    model, renderer = load_checkpoint(base, "cpu", LoadOptions(dtype=dtype))  # pyright: ignore[reportArgumentType]
    try:
        merged = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
    except (ValueError, RuntimeError, KeyError) as error:
        raise ModelError(f"{adapter}: does not fit {base} ({str(error).splitlines()[0][:200]})") from None
    merged.save_pretrained(out)
    renderer.processor.save_pretrained(out)
    if (Path(base) / PROFILE_FILE).is_file():
        save_profile(load_profile(Path(base)), out)
    return out
