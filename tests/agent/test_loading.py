"""Loading checkpoints: options, adapters, folders as published, and one line for whatever cannot be loaded."""

from __future__ import annotations

import asyncio
import json
import shutil

import pytest
from playhead.agent.policies import loading, room
from playhead.agent.policies.loading import LoadOptions
from playhead.agent.policies.transformers import TransformersPolicy
from playhead.agent.prompts import first_messages
from playhead.agent.video_agent import VideoAgent
from playhead.core.errors import ModelError
from playhead.core.nouns import Frame
from playhead.core.policy import GenerateRequest, Sampling

torch = pytest.importorskip("torch")
one_family = pytest.mark.parametrize("family", ["qwen2_5_vl"], indirect=True)


def greedy(policy, n: int = 8) -> tuple[tuple[int, ...], tuple[float, ...]]:
    shown = Frame(video_id="v", timestamp_s=1.0, sha256="1", width=64, height=64)
    messages = first_messages(10.0, [shown], "What?")
    start = policy.renderer.start(messages, ())
    request = GenerateRequest(session="s", token_ids=start.token_ids, frames=start.frames, messages=messages,
                              sampling=Sampling(max_tokens=n))  # fmt: skip
    (said,) = asyncio.run(policy.generate([request]))
    return said.token_ids, said.logprobs


def refused(spec, store, **options) -> str:
    with pytest.raises(ModelError) as error:
        TransformersPolicy.load(spec, store, options=LoadOptions(**options))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_dtype_attention_and_device_map(family, store):
    usual = TransformersPolicy.load(family.folder, store)
    tokens, logprobs = greedy(usual)
    eager = TransformersPolicy.load(family.folder, store, options=LoadOptions(attention="eager", device_map={"": "cpu"}))
    assert eager.model.config._attn_implementation == "eager"
    assert greedy(eager)[0] == tokens
    assert greedy(eager)[1] == pytest.approx(logprobs, abs=1e-4)
    half = TransformersPolicy.load(family.folder, store, options=LoadOptions(dtype="bfloat16", device_map="auto"))
    assert next(half.model.parameters()).dtype == torch.bfloat16
    assert len(greedy(half)[0]) == len(tokens)
    assert "nonsense" in refused(family.folder, store, attention="nonsense")


def test_a_folder_as_older_versions_of_transformers_published_it(family, store, tmp_path):
    """preprocessor_config.json and chat_template.json instead of processor_config.json and chat_template.jinja; for
    Qwen2.5-VL also the text model's settings at the top of config.json."""
    folder = shutil.copytree(family.folder, tmp_path / "old")
    processor = json.loads((folder / "processor_config.json").read_text())
    name = processor["processor_class"]
    image = processor.pop("image_processor") | {"processor_class": name}
    if family.model_type == "smolvlm":
        image["video_sampling"] = {"fps": 1, "max_frames": 64, "video_size": {"longest_edge": 32}}
        (folder / "processor_config.json").write_text(json.dumps({"processor_class": name, "image_seq_len": 4}))
    else:
        (folder / "processor_config.json").unlink()
    (folder / "preprocessor_config.json").write_text(json.dumps(image))
    template = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    (folder / "chat_template.jinja").unlink()
    if family.model_type == "qwen2_5_vl":
        config = json.loads((folder / "config.json").read_text())
        inner = config.pop("text_config")
        rope = inner.pop("rope_parameters")
        inner |= {"rope_theta": rope["rope_theta"], "rope_scaling": {"type": "mrope", "mrope_section": rope["mrope_section"]}}
        (folder / "config.json").write_text(json.dumps(inner | config))
    assert greedy(TransformersPolicy.load(folder, store)) == greedy(TransformersPolicy.load(family.folder, store))


@one_family
def test_a_hub_id_is_taken_from_the_local_cache(family, store, tmp_path, monkeypatch):
    snapshot = tmp_path / "models--someone--tiny" / "snapshots" / ("a" * 40)
    shutil.copytree(family.folder, snapshot)
    (tmp_path / "models--someone--tiny" / "refs").mkdir()
    (tmp_path / "models--someone--tiny" / "refs" / "main").write_text("a" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    policy = TransformersPolicy.load("someone/tiny", store)
    assert policy.name == "someone/tiny" and len(greedy(policy)[0]) > 0
    assert room._hub_tensors("someone/tiny") == room._local_tensors(family.folder)
    assert "not in the local cache" in refused("someone/else", store)
    assert "adapter not found" in refused("someone/tiny", store, adapter="someone/no-adapter")


def test_an_adapter_is_put_on_the_model(family, store, tmp_path):
    peft = pytest.importorskip("peft")
    usual = TransformersPolicy.load(family.folder, store)
    plain = greedy(usual)
    torch.manual_seed(1)
    config = peft.LoraConfig(target_modules=["q_proj", "v_proj"], r=2, init_lora_weights=False)
    wrapped = peft.get_peft_model(usual.model, config)
    wrapped.save_pretrained(tmp_path / "adapter")
    expected = greedy(TransformersPolicy(wrapped.get_base_model(), usual.renderer, store))
    policy = TransformersPolicy.load(family.folder, store, options=LoadOptions(adapter=tmp_path / "adapter"))
    assert policy.name == f"{family.folder}+{tmp_path / 'adapter'}"
    assert greedy(policy)[1] == pytest.approx(expected[1], abs=1e-4)
    assert greedy(policy)[1] != pytest.approx(plain[1], abs=1e-3)


@one_family
def test_an_adapter_that_does_not_fit_is_refused(family, store, tmp_path):
    peft = pytest.importorskip("peft")
    from safetensors.torch import load_file, save_file

    assert "no adapter there" in refused(family.folder, store, adapter=tmp_path / "nowhere")
    model = TransformersPolicy.load(family.folder, store).model
    peft.get_peft_model(model, peft.LoraConfig(target_modules=["q_proj"], r=2)).save_pretrained(tmp_path / "a")
    weights = load_file(tmp_path / "a" / "adapter_model.safetensors")
    shutil.copytree(tmp_path / "a", tmp_path / "lacking")
    save_file(dict(list(weights.items())[1:]), tmp_path / "lacking" / "adapter_model.safetensors", metadata={"format": "pt"})
    assert "do not fit" in refused(family.folder, store, adapter=tmp_path / "lacking")
    shutil.copytree(tmp_path / "a", tmp_path / "wide")
    wide = {k: torch.cat([v, v], -1) for k, v in weights.items()}
    save_file(wide, tmp_path / "wide" / "adapter_model.safetensors", metadata={"format": "pt"})
    assert str(tmp_path / "wide") in refused(family.folder, store, adapter=tmp_path / "wide")
    config = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    (tmp_path / "a" / "adapter_config.json").write_text(json.dumps(config | {"target_modules": ["no_such_layer"]}))
    assert "cannot be put on" in refused(family.folder, store, adapter=tmp_path / "a")
    (tmp_path / "a" / "adapter_model.safetensors").rename(tmp_path / "a" / "adapter_model.bin")
    assert "no adapter there" in refused(family.folder, store, adapter=tmp_path / "a")


@one_family
def test_four_bit_loading_says_what_it_lacks(family, store, monkeypatch):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    monkeypatch.setattr(loading, "find_spec", lambda name: None)
    assert "pip install 'playhead[4bit]'" in refused(family.folder, store, four_bit=True)
    monkeypatch.setattr(loading, "find_spec", lambda name: object())
    assert "needs a GPU" in refused(family.folder, store, four_bit=True)
    with pytest.raises(ModelError, match="no GPU"):
        TransformersPolicy.load(family.folder, store, device="cuda")


def test_four_bits_are_for_the_language_model_only(family, store, monkeypatch):
    """On a CPU, for which bitsandbytes has kernels too (we refuse it, for it is slow there)."""
    pytest.importorskip("bitsandbytes")
    monkeypatch.setattr(loading, "_check_four_bit", lambda *_: None)
    policy = TransformersPolicy.load(family.folder, store, options=LoadOptions(four_bit=True))
    small = [name for name, module in policy.model.named_modules() if type(module).__name__ == "Linear4bit"]
    assert len(small) == 14 and all("language_model" in n or "text_model" in n for n in small)
    assert len(greedy(policy)[0]) > 0


def test_weights_are_counted_from_headers(family, store, monkeypatch):
    tensors = room._local_tensors(family.folder)
    model = TransformersPolicy.load(family.folder, store).model
    size = sum(p.numel() for p in model.parameters())
    counted = [room.weights_bytes(tensors, dtype, four_bit=False) for dtype in ("float32", "bfloat16", "auto")]
    assert counted == [4 * size, 2 * size, 4 * size]
    assert room.weights_bytes(tensors, "bfloat16", four_bit=True) < 2 * size
    monkeypatch.setattr(room, "available_ram", lambda: 3 * size)
    line = refused(family.folder, store)
    assert f"take {4 * size / 1e6:.1f} MB as float32, and {3 * size / 1e6:.1f} MB are free (RAM)" in line
    TransformersPolicy.load(family.folder, store, options=LoadOptions(dtype="bfloat16"))


GIB = 1 << 30


@one_family
@pytest.mark.parametrize(
    ("device", "free", "room_for_caches"),
    [("cpu", 8 * GIB, 2 * GIB), ("cpu", 64 * GIB, 4 * GIB), ("cpu", 3 * GIB, GIB), ("cpu", GIB, GIB // 2),
     ("gpu", 60 * GIB, 15 * GIB), ("gpu", 2 * GIB, GIB), ("gpus", 20 * GIB, 10 * GIB)],
)  # fmt: skip
def test_caches_take_a_share_of_what_is_free(family, store, monkeypatch, device, free, room_for_caches):
    model = TransformersPolicy.load(family.folder, store).model
    places = {"cpu": {"": "cpu"}, "gpu": {"": "cuda:0"}, "gpus": {"a": 0, "b": 1, "c": "cpu"}}[device]
    monkeypatch.setattr(model, "hf_device_map", places, raising=False)
    monkeypatch.setattr(room, "free_bytes", lambda place: (free + (GIB if place == "1" else 0), place))
    assert room.cache_limits(model, None) == {"cache_bytes": room_for_caches, "vision_bytes": room_for_caches // 4}
    assert room.cache_limits(model, 0.5) == {"cache_bytes": 500_000_000, "vision_bytes": 125_000_000}


@one_family
def test_what_caches_may_take_is_said_when_loading(family, store, tmp_path, monkeypatch):
    agent = VideoAgent(str(family.folder), home=tmp_path, load=LoadOptions(cache_gb=0.5))
    engine = agent.policy.engine
    assert (engine._cache_bytes, engine.vision._max_bytes) == (500_000_000, 125_000_000)
    monkeypatch.setattr(room, "available_ram", lambda: 8 * GIB)
    engine = TransformersPolicy.load(family.folder, store).engine
    assert (engine._cache_bytes, engine.vision._max_bytes) == (2 * GIB, GIB // 2)
    engine = TransformersPolicy.load(family.folder, store, cache_bytes=7).engine
    assert (engine._cache_bytes, engine.vision._max_bytes) == (7, 256 << 20)
    for bad in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="cache_gb"):
            LoadOptions(cache_gb=bad)


@one_family
def test_sharded_weights_are_counted_whole(family, tmp_path, store):
    model = TransformersPolicy.load(family.folder, store).model
    model.save_pretrained(tmp_path, max_shard_size="200KB")
    assert (tmp_path / "model.safetensors.index.json").is_file()
    whole = room.weights_bytes(room._local_tensors(family.folder), "auto", four_bit=False)
    assert room.weights_bytes(room._local_tensors(tmp_path), "auto", four_bit=False) == whole
    assert 0 < room.available_ram() < 1 << 50


@one_family
def test_a_type_that_is_not_supported_runs_no_code_of_the_checkpoint(family, store, tmp_path):
    config = {"model_type": "internvl_chat", "auto_map": {"AutoConfig": "configuration.Config"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "configuration.py").write_text("raise SystemExit('ran')")
    line = refused(tmp_path, store)
    assert "internvl_chat" in line and "qwen2_5_vl" in line and "smolvlm" in line
    for damaged in ("{", "[]", "[1]", "null", '"x"', "3"):
        (tmp_path / "config.json").write_text(damaged)
        assert "unreadable" in refused(tmp_path, store)


@one_family
@pytest.mark.parametrize(
    ("name", "text"),
    [
        *((f, t) for f in ("tokenizer_config.json", "processor_config.json", "tokenizer.json") for t in ("[]", "null", "{")),
        *(("tokenizer_config.json", t) for t in ("3", '"x"', "\\xff")),
    ],
)
def test_a_processors_file_that_is_damaged_is_one_line(family, tmp_path, name, text):
    shutil.copytree(family.folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / name).write_text(text)
    why = f"no processor could be loaded .*{name} (holds no JSON object|cannot be read)"
    with pytest.raises(ModelError, match=why) as error:
        loading.load_renderer(str(tmp_path))
    assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)


@one_family
def test_a_folder_without_a_template_keeps_its_own_line(family, tmp_path):
    shutil.copytree(family.folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "chat_template.jinja").unlink()
    with pytest.raises(ModelError, match=r"^the checkpoint has no chat template"):
        loading.load_renderer(str(tmp_path))


@one_family
def test_load_options_reach_the_agents_model(family, tmp_path):
    agent = VideoAgent(str(family.folder), home=tmp_path, load=LoadOptions(dtype="bfloat16"))
    assert next(agent.policy.model.parameters()).dtype == torch.bfloat16  # type: ignore[attr-defined]
    with pytest.raises(ModelError, match="load options"):
        VideoAgent(agent.policy, home=tmp_path, load=LoadOptions())
    with pytest.raises(ValueError, match="dtype"):
        LoadOptions(dtype="int8")  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="not both"):
        VideoAgent(str(family.folder), home=tmp_path, device="cpu", load=LoadOptions(device_map="auto"))
