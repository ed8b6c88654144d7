"""From a folder or a hub id to a model and its renderer, or to one line that says why not.

What is asked before anything large happens: is it there, is it of a family that we know, can this machine do what the
options ask, do the weights fit. The weights' size is read from the headers of the safetensors files; nothing else is ever
loaded (no pickle), and no code from a checkpoint is run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ...core.errors import ModelError
from ..families import FAMILIES, renderer_class
from .room import check_room

if TYPE_CHECKING:
    from ..renderers.chat import ChatRenderer

DTYPES = ("auto", "float32", "bfloat16", "float16")
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadOptions:
    """How a checkpoint is loaded.

    Raises: ValueError: an unknown dtype, a device map that is empty, or caches of no size.
    """

    dtype: Literal["auto", "float32", "bfloat16", "float16"] | None = None
    """None: float32 on a CPU (bf16 is many times slower there), the checkpoint's own type ("auto") on a GPU."""
    device_map: str | Mapping[str, int | str] | None = None
    """Where the layers go: "auto" (over all GPUs, then RAM) or accelerate's map; None: all on one device."""
    attention: str | None = None
    """transformers' `attn_implementation`: "sdpa", "eager", "flash_attention_2", ...; None for its choice."""
    four_bit: bool = False
    """NF4 weights by bitsandbytes; needs a GPU and the extra `4bit`. The vision tower and the head stay as they are."""
    adapter: str | Path | None = None
    """Folder or hub id of a PEFT adapter (not a prompt-learning one), put on the model."""
    cache_gb: float | None = None
    """GB (10^9 bytes) for attention caches, and a quarter as much besides for features of frames. None: a quarter of what is
    free on the device once the model is there, of RAM at most 4 GiB (`room.cache_room`)."""

    def __post_init__(self) -> None:
        if self.dtype is not None and self.dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}; got {self.dtype!r}")
        if self.device_map is not None and not self.device_map:
            raise ValueError("device_map must not be empty")
        if self.cache_gb is not None and not 0 < self.cache_gb < float("inf"):
            raise ValueError(f"cache_gb must be more than 0; got {self.cache_gb:g}")


def load_checkpoint(checkpoint: str, device: str | None, options: LoadOptions) -> tuple[Any, ChatRenderer]:
    """(the model in eval mode, its renderer).

    Args:
        checkpoint: a folder or a hub id.
        device: "cpu", "cuda", "cuda:1", ...; None to choose. Not together with `options.device_map`.

    Raises: ModelError: with one line, for every way in which this can fail.
    """
    import torch

    if device is not None and options.device_map is not None:
        raise ModelError(f"{checkpoint}: give a device or a device map, not both")
    local = checkpoint.startswith((".", "/", "~")) or Path(checkpoint).exists()
    source = str(Path(checkpoint).expanduser()) if local else checkpoint
    model_type = _model_type(checkpoint, source, local)
    where = options.device_map or device or ("cuda" if torch.cuda.is_available() else "cpu")
    on_cpu = where == "cpu" or (isinstance(where, Mapping) and set(where.values()) == {"cpu"})
    dtype = options.dtype or ("float32" if on_cpu or not torch.cuda.is_available() else "auto")
    if not on_cpu and not torch.cuda.is_available() and where != "auto":
        raise ModelError(f"{checkpoint}: no GPU that torch can use, so {where!r} is not possible here; use 'cpu'")
    if options.four_bit:
        _check_four_bit(checkpoint, on_cpu or not torch.cuda.is_available())
    check_room(checkpoint, source, local, dtype, where, four_bit=options.four_bit)
    model = _load_model(checkpoint, source, where, dtype, options)
    if options.adapter is not None:
        _add_adapter(model, str(options.adapter))
    return model.eval(), renderer_class(model_type).from_checkpoint(source)


def load_renderer(checkpoint: str) -> ChatRenderer:
    """The renderer of a folder or a hub id, without its weights.

    Raises: ModelError: not there, of no family that we know, or damaged.
    """
    local = checkpoint.startswith((".", "/", "~")) or Path(checkpoint).exists()
    source = str(Path(checkpoint).expanduser()) if local else checkpoint
    return renderer_class(_model_type(checkpoint, source, local)).from_checkpoint(source)


def _model_type(checkpoint: str, source: str, local: bool) -> str:
    from transformers import AutoConfig, PreTrainedConfig

    if "://" in checkpoint:  # not said: a password may stand in it
        raise ModelError("the model is no folder and no hub id; a server is written http://HOST:PORT/v1#MODEL")
    if local and not (Path(source) / "config.json").is_file():
        raise ModelError(f"{checkpoint}: no model there (a folder with config.json is expected)")
    try:
        data, _ = PreTrainedConfig.get_config_dict(source)
    except Exception as error:
        raise _unreadable(checkpoint, local, error) from None
    # Asked of the raw file: the config class of an unknown type may want to run the checkpoint's own code.
    model_type = str(data.get("model_type")) if data and isinstance(data, dict) else None
    if not model_type:
        raise _unreadable(checkpoint, local, OSError("it holds no JSON object"))
    if model_type not in FAMILIES:
        raise ModelError(f"{checkpoint}: model type {model_type!r} is not supported; {', '.join(FAMILIES)} are")
    try:
        AutoConfig.from_pretrained(source)
    except Exception as error:
        raise _unreadable(checkpoint, local, error) from None
    return model_type


def _unreadable(checkpoint: str, local: bool, error: Exception) -> ModelError:
    hint = "damaged config.json?" if local else "not in the local cache, and the hub gave nothing; is the id right?"
    return ModelError(f"{checkpoint}: model not found or unreadable ({hint} {_first_line(error)})")


def _check_four_bit(checkpoint: str, no_gpu: bool) -> None:
    if find_spec("bitsandbytes") is None:
        raise ModelError(f"{checkpoint}: 4-bit loading needs bitsandbytes: pip install 'playhead[4bit]'")
    if no_gpu:
        raise ModelError(f"{checkpoint}: 4-bit loading needs a GPU that torch can use, and there is none")


def _load_model(checkpoint: str, source: str, where: Any, dtype: str, options: LoadOptions) -> Any:
    import torch
    from transformers import AutoModelForImageTextToText, BitsAndBytesConfig

    one_device = isinstance(where, str) and not where.startswith(("auto", "balanced", "sequential"))
    how: dict[str, Any] = {"dtype": dtype if dtype == "auto" else getattr(torch, dtype)}
    if options.attention is not None:
        how["attn_implementation"] = options.attention
    if options.four_bit:
        compute = torch.bfloat16 if dtype == "auto" else getattr(torch, dtype)
        how["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=compute,
            llm_int8_skip_modules=[".*visual", ".*vision_model", ".*connector", "lm_head"],
        )
    if options.four_bit or not one_device:
        how["device_map"] = {"": where} if one_device else where
    try:
        loaded: Any = AutoModelForImageTextToText.from_pretrained(
            source, use_safetensors=True, output_loading_info=True, **how
        )
        model, info = loaded
    except torch.OutOfMemoryError:
        raise ModelError(f"{checkpoint}: the memory of {where} is too small for the weights") from None
    except Exception as error:
        raise ModelError(f"{checkpoint}: the weights cannot be loaded ({_first_line(error)})") from None
    lacking = sorted(info["missing_keys"]) + [str(k) for k in info["mismatched_keys"]]
    if lacking:
        raise ModelError(f"{checkpoint}: {len(lacking)} weights are missing or of the wrong shape, such as {lacking[0]}")
    return model if "device_map" in how else model.to(where)


def _add_adapter(model: Any, adapter: str) -> None:
    """Put the adapter's layers into the model, which keeps its class."""
    if find_spec("peft") is None:
        raise ModelError(f"{adapter}: adapters need peft: pip install peft")
    folder = _adapter_folder(adapter)
    for name in ADAPTER_FILES:
        if not (folder / name).is_file():
            raise ModelError(f"{adapter}: no adapter there ({' and '.join(ADAPTER_FILES)} are expected)")
    try:
        info = model.load_adapter(str(folder), use_safetensors=True)
    except Exception as error:
        raise ModelError(f"{adapter}: the adapter cannot be put on this model ({_first_line(error)})") from None
    odd = [*sorted(info.missing_keys), *sorted(info.unexpected_keys), *map(str, info.mismatched_keys)]
    if odd:
        raise ModelError(f"{adapter}: {len(odd)} weights of the adapter do not fit this model, such as {odd[0]}")


def _adapter_folder(adapter: str) -> Path:
    from huggingface_hub import snapshot_download

    folder = Path(adapter).expanduser()
    if folder.exists() or adapter.startswith((".", "/", "~")):
        return folder
    try:
        return Path(snapshot_download(adapter, allow_patterns=list(ADAPTER_FILES)))
    except Exception as error:
        raise ModelError(f"{adapter}: adapter not found ({_first_line(error)})") from None


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
