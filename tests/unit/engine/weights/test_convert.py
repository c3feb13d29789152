"""Imports from CTranslate2 and Hugging Face directories, written here by the formats' own rules from a random model."""

import hashlib
import json
import struct

import pytest
import safetensors.torch
import torch
from whisper.model import ModelDimensions, Whisper

from whisperd.core.errors import BootError
from whisperd.engine.weights import checkpoint
from whisperd.engine.weights.checkpoint import load
from whisperd.engine.weights.convert import import_directory
from whisperd.engine.weights.find import Weights, find, verify

HEADS = [[0, 1], [1, 0]]
CT2_TYPES = {torch.float32: 0, torch.int8: 1, torch.int16: 2, torch.int32: 3, torch.float16: 4, torch.bfloat16: 5}


@pytest.fixture(scope="module")
def model():
    """Every number that a conversion could confuse differs between the sides; weights are exact in fp16 and bf16."""
    torch.manual_seed(0)
    model = Whisper(ModelDimensions(80, 1500, 24, 2, 1, 51865, 448, 24, 3, 2)).requires_grad_(requires_grad=False)
    for tensor in model.state_dict().values():
        tensor.copy_(torch.randn(tensor.shape).mul(0.3).bfloat16().half())
    return model


def logits(model):
    """What encoder and decoder make of one fixed input: shape (1, 4, 51865)."""
    mel = torch.randn(1, 80, 3000, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return model(mel, torch.tensor([[50258, 50259, 50359, 7]]))


def hugging_face(model):
    """The tensors under the names of `WhisperForConditionalGeneration.state_dict()`."""
    names = {"model.decoder.embed_tokens.weight": "decoder.token_embedding.weight"}
    dims = model.dims
    attention = {"q_proj": "query", "k_proj": "key", "v_proj": "value", "out_proj": "out"}
    for side, layers, last in (("encoder", dims.n_audio_layer, "ln_post"), ("decoder", dims.n_text_layer, "ln")):
        names[f"model.{side}.embed_positions.weight"] = f"{side}.positional_embedding"
        modules = {"layer_norm": last}
        if side == "encoder":
            modules |= {"conv1": "conv1", "conv2": "conv2"}
        for layer in range(layers):
            parts = {"fc1": "mlp.0", "fc2": "mlp.2", "final_layer_norm": "mlp_ln", "self_attn_layer_norm": "attn_ln"}
            parts |= {f"self_attn.{theirs}": f"attn.{ours}" for theirs, ours in attention.items()}
            if side == "decoder":
                parts |= {f"encoder_attn.{theirs}": f"cross_attn.{ours}" for theirs, ours in attention.items()}
                parts["encoder_attn_layer_norm"] = "cross_attn_ln"
            modules |= {f"layers.{layer}.{theirs}": f"blocks.{layer}.{ours}" for theirs, ours in parts.items()}
        for theirs, ours in modules.items():
            names[f"model.{side}.{theirs}.weight"] = f"{side}.{ours}.weight"
            if not theirs.endswith("k_proj"):
                names[f"model.{side}.{theirs}.bias"] = f"{side}.{ours}.bias"
    state = model.state_dict()
    tensors = {theirs: state[ours].contiguous() for theirs, ours in names.items()}
    assert len(tensors) == len(state)
    return tensors


def write_hugging_face(folder, model, tensors=None, *, shards=1, prefix="model.", dtype=torch.float32, **config):
    tensors = hugging_face(model) if tensors is None else tensors
    tensors = {prefix + name.removeprefix("model."): tensor.to(dtype) for name, tensor in tensors.items()}
    folder.mkdir()
    if shards == 1:
        safetensors.torch.save_file(tensors, folder / "model.safetensors")
    else:
        places = {name: f"model-{i % shards + 1:05}-of-{shards:05}.safetensors" for i, name in enumerate(tensors)}
        for place in set(places.values()):
            safetensors.torch.save_file({n: t for n, t in tensors.items() if places[n] == place}, folder / place)
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    config = {"model_type": "whisper", "encoder_attention_heads": 2, "decoder_attention_heads": 3, **config}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").write_text(json.dumps({"alignment_heads": HEADS}))
    return folder


def ct2_variables(model, dtype):
    """The variables of `ctranslate2.specs.WhisperSpec`: query, key and value in one matrix."""
    state = {name: tensor.to(dtype) for name, tensor in model.state_dict().items()}
    variables = {
        "encoder/num_heads": torch.tensor(model.dims.n_audio_head, dtype=torch.int16),
        "decoder/num_heads": torch.tensor(model.dims.n_text_head, dtype=torch.int16),
        "decoder/pre_norm": torch.tensor(1, dtype=torch.int8),
        "decoder/embeddings/weight": state["decoder.token_embedding.weight"],
    }

    def linear(to, *sources):
        zeros = torch.zeros(24, dtype=dtype)
        variables[f"{to}/weight"] = torch.cat([state[f"{source}.weight"] for source in sources])
        variables[f"{to}/bias"] = torch.cat([state.get(f"{source}.bias", zeros) for source in sources])

    def norm(to, source):
        variables[f"{to}/gamma"], variables[f"{to}/beta"] = state[f"{source}.weight"], state[f"{source}.bias"]

    for side, layers in (("encoder", model.dims.n_audio_layer), ("decoder", model.dims.n_text_layer)):
        variables[f"{side}/position_encodings/encodings"] = state[f"{side}.positional_embedding"]
        for layer in range(layers):
            to, source = f"{side}/layer_{layer}", f"{side}.blocks.{layer}"
            linear(f"{to}/self_attention/linear_0", *(f"{source}.attn.{part}" for part in ("query", "key", "value")))
            linear(f"{to}/self_attention/linear_1", f"{source}.attn.out")
            norm(f"{to}/self_attention/layer_norm", f"{source}.attn_ln")
            if side == "decoder":
                linear(f"{to}/attention/linear_0", f"{source}.cross_attn.query")
                linear(f"{to}/attention/linear_1", f"{source}.cross_attn.key", f"{source}.cross_attn.value")
                linear(f"{to}/attention/linear_2", f"{source}.cross_attn.out")
                norm(f"{to}/attention/layer_norm", f"{source}.cross_attn_ln")
            linear(f"{to}/ffn/linear_0", f"{source}.mlp.0")
            linear(f"{to}/ffn/linear_1", f"{source}.mlp.2")
            norm(f"{to}/ffn/layer_norm", f"{source}.mlp_ln")
    linear("encoder/conv1", "encoder.conv1")
    linear("encoder/conv2", "encoder.conv2")
    norm("encoder/layer_norm", "encoder.ln_post")
    norm("decoder/layer_norm", "decoder.ln")
    return variables


def ct2_bytes(variables, version=6, specification="WhisperSpec"):
    def text(value):
        return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"

    data = struct.pack("<I", version) + text(specification) + struct.pack("<II", 3, len(variables))
    for name, tensor in variables.items():
        raw = bytes(tensor.contiguous().reshape(-1).view(torch.uint8).numpy())
        data += text(name) + struct.pack(f"<B{tensor.dim()}I", tensor.dim(), *tensor.shape)
        data += struct.pack("<BI", CT2_TYPES[tensor.dtype], len(raw)) + raw
    return data + struct.pack("<I", 1) + text("decoder/projection/weight") + text("decoder/embeddings/weight")


def write_ct2(folder, data, **config):
    folder.mkdir()
    (folder / "model.bin").write_bytes(data)
    (folder / "config.json").write_text(json.dumps({"alignment_heads": HEADS, **config}))
    return folder


def assert_equal_models(found, expected):
    assert found.dims == expected.dims
    assert found.alignment_heads.indices().T.tolist() == HEADS
    for name, tensor in expected.state_dict().items():
        assert torch.equal(found.state_dict()[name], tensor), name
    assert torch.equal(logits(found), logits(expected))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.bfloat16], ids=str)
def test_a_ctranslate2_directory_is_imported(tmp_path, model, dtype):
    """The imported model computes the same logits, with the heads of `config.json`, whatever its float type was."""
    source = write_ct2(tmp_path / "ct2", ct2_bytes(ct2_variables(model, dtype)))

    weights = import_directory(source, "mine", tmp_path / "models")

    assert weights == find("mine", tmp_path / "models") == verify("mine", tmp_path / "models")
    assert weights.source == f"imported from {source} (CTranslate2)"
    assert_equal_models(load(weights, "cpu"), model)


@pytest.mark.parametrize(
    "form",
    [
        pytest.param({}, id="one file"),
        pytest.param({"shards": 3}, id="shards"),
        pytest.param({"prefix": ""}, id="without the prefix"),
        pytest.param({"dtype": torch.float16}, id="fp16"),
        pytest.param({"dtype": torch.bfloat16}, id="bf16"),
    ],
)
def test_a_hugging_face_directory_is_imported(tmp_path, model, form):
    """The imported model computes the same logits, with the heads of `generation_config.json`."""
    source = write_hugging_face(tmp_path / "hf", model, **form)

    weights = import_directory(source, "mine", tmp_path / "models")

    assert weights == verify("mine", tmp_path / "models")
    assert weights.source == f"imported from {source} (Hugging Face)"
    assert_equal_models(load(weights, "cpu"), model)


def test_an_imported_checkpoint_is_fp16_and_readable_by_all(tmp_path, model):
    """The file is as small as OpenAI's own and holds plain tensors, one storage each."""
    weights = import_directory(write_hugging_face(tmp_path / "hf", model), "mine", tmp_path)

    state = torch.load(weights.paths[0], weights_only=True)["model_state_dict"]
    assert {tensor.dtype for tensor in state.values()} == {torch.float16}
    size = sum(2 * tensor.numel() for tensor in state.values())
    assert size < weights.paths[0].stat().st_size < size + 50_000


def test_weights_in_parts_load_without_a_file_between(tmp_path, model):
    """A package's parts are joined and converted in memory: the unit's disk is read-only."""
    data = ct2_bytes(ct2_variables(model, torch.float16))
    paths = (tmp_path / "part1", tmp_path / "part2")
    paths[0].write_bytes(data[:1001])
    paths[1].write_bytes(data[1001:])
    weights = Weights("base", "package", paths, hashlib.sha256(data).hexdigest(), "the package index")

    found = load(weights, "cpu")

    assert torch.equal(logits(found), logits(model))
    assert sorted(tmp_path.iterdir()) == sorted(paths)


def test_missing_alignment_heads_are_told(tmp_path, model):
    """A model without heads is imported, and the list of models says what that costs."""
    source = write_hugging_face(tmp_path / "hf", model)
    (source / "generation_config.json").unlink()

    weights = import_directory(source, "mine", tmp_path)

    assert "no alignment heads" in weights.source
    assert load(weights, "cpu").alignment_heads.indices().T.tolist() == [[1, 0], [1, 1], [1, 2]]


def test_a_projection_equal_to_the_embedding_is_dropped(tmp_path, model):
    """Some exporters write the tied output layer twice."""
    tensors = hugging_face(model)
    tensors["proj_out.weight"] = tensors["model.decoder.embed_tokens.weight"].clone()
    source = write_hugging_face(tmp_path / "hf", model, tensors, prefix="")

    assert_equal_models(load(import_directory(source, "mine", tmp_path), "cpu"), model)


def changed(tensors, **changes):
    """Tensors with some replaced, or removed where the change is None; a dot is written as two underscores."""
    result = dict(tensors)
    for name, change in changes.items():
        key = next(key for key in [*tensors, "proj_out.weight"] if key.replace(".", "__") == name)
        if change is None:
            del result[key]
        else:
            result[key] = change(result.get(key))
    return result


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"model__encoder__conv1__bias": None}, "encoder.conv1.bias", id="a tensor is missing"),
        pytest.param({"model__encoder__conv1__weight": None}, "encoder.conv1.weight", id="a dimension is missing"),
        pytest.param({"model__decoder__layers__1__fc1__bias": lambda t: t[:5]}, r"blocks.1.mlp.0.bias", id="shape"),
        pytest.param({"model__decoder__layer_norm__bias": lambda t: t * 1e9}, "no numbers in fp16", id="too large"),
        pytest.param({"model__decoder__embed_tokens__weight": lambda t: t[:-7]}, "51858 tokens", id="vocabulary"),
        pytest.param({"proj_out__weight": lambda _: torch.ones(51865, 24)}, "output layer", id="untied"),
    ],
)
def test_a_model_that_openai_whisper_cannot_run_is_refused(tmp_path, model, changes, message):
    """What would fail at each start of a worker, or transcribe nonsense, fails at its import and leaves nothing."""
    source = write_hugging_face(tmp_path / "hf", model, changed(hugging_face(model), **changes), prefix="")

    with pytest.raises(BootError, match=rf"cannot import .*hf: .*{message}"):
        import_directory(source, "mine", tmp_path / "models")

    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        pytest.param(lambda f: (f / "config.json").write_text('{"model_type": "wav2vec2"}'), "wav2vec2", id="other"),
        pytest.param(lambda f: (f / "config.json").unlink(), "config.json", id="no config"),
        pytest.param(lambda f: (f / "config.json").write_text("{"), "JSONDecodeError", id="broken config"),
        pytest.param(lambda f: (f / "config.json").write_text("[]"), "list", id="another JSON"),
        pytest.param(lambda f: (f / "model.safetensors").write_bytes(b"text"), "SafetensorError", id="no safetensors"),
        pytest.param(
            lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:-9]),
            "SafetensorError",
            id="truncated",
        ),
        pytest.param(
            lambda f: (f / "generation_config.json").write_text('{"alignment_heads": [[0, 3]]}'),
            r"head \[0, 3\]",
            id="heads it does not have",
        ),
        pytest.param(lambda f: (f / "model.safetensors").unlink(), "neither model.bin nor", id="no model"),
    ],
)
def test_a_damaged_hugging_face_directory_is_refused(tmp_path, model, damage, message):
    """The error names the directory and the reason in one line."""
    source = write_hugging_face(tmp_path / "hf", model)
    damage(source)

    with pytest.raises(BootError, match=rf"cannot import .*hf: .*{message}") as caught:
        import_directory(source, "mine", tmp_path / "models")

    assert "\n" not in str(caught.value)
    assert caught.value.hint


def quantised(model):
    variables = ct2_variables(model, torch.float16)
    variables["encoder/layer_0/ffn/linear_0/weight"] = torch.zeros(96, 24, dtype=torch.int8)
    return ct2_bytes(variables)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(quantised, "quantised .*linear_0/weight is torch.int8", id="int8"),
        pytest.param(lambda m: ct2_bytes({}, version=5), "version 5 of the format, not 6", id="old version"),
        pytest.param(lambda m: ct2_bytes({}, specification="TransformerSpec"), "a TransformerSpec", id="another model"),
        pytest.param(
            lambda m: ct2_bytes(ct2_variables(m, torch.float16))[:999], "ends after 999 bytes", id="truncated"
        ),
        pytest.param(lambda m: ct2_bytes({}), "KeyError", id="no variables"),
        pytest.param(lambda m: b"", "empty", id="empty"),
        pytest.param(lambda m: b"text, not a model", "version", id="text"),
    ],
)
def test_a_ctranslate2_model_that_cannot_be_converted_is_refused(tmp_path, model, content, message):
    """int8 weights, other versions, other models and damage each have their own reason."""
    source = write_ct2(tmp_path / "ct2", content(model))

    with pytest.raises(BootError, match=rf"cannot import .*ct2: .*{message}") as caught:
        import_directory(source, "mine", tmp_path / "models")

    assert caught.value.hint
    assert not (tmp_path / "models").exists()


def test_an_untied_ctranslate2_projection_is_refused(model):
    """A projection that is no alias differs from the embedding, and openai-whisper has no place for it."""
    variables = ct2_variables(model, torch.float16)
    variables["decoder/projection/weight"] = torch.ones(51865, 24, dtype=torch.float16)

    with pytest.raises(ValueError, match="output layer"):
        checkpoint.read_ct2(ct2_bytes(variables))


def test_a_name_that_is_taken_is_refused(tmp_path, model):
    """An import never replaces a model that a worker may be running."""
    source = write_hugging_face(tmp_path / "hf", model)
    (tmp_path / "large-v3.pt").write_bytes(b"mine")

    with pytest.raises(BootError, match=r"large-v3\.pt is there already"):
        import_directory(source, "large", tmp_path)

    assert (tmp_path / "large-v3.pt").read_bytes() == b"mine"


@pytest.mark.parametrize("name", ["", "a/b", "../up", ".hidden", "mine.pt", "-f", "a b", "a\n"], ids=repr)
def test_a_name_must_be_one_that_a_config_can_use(tmp_path, name):
    """A name that `find` would take for a path, or that a shell would stumble over, is refused before any work."""
    with pytest.raises(BootError, match="cannot be a model's name"):
        import_directory(tmp_path, name, tmp_path)
