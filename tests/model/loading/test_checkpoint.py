"""Checkpoints that must load, and checkpoints that must be refused with a message that names what is wrong."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sa2va_bento.errors import CheckpointError
from sa2va_bento.model.internvl.model import InternVLSa2VA
from sa2va_bento.model.loading import weights
from sa2va_bento.model.loading.checkpoint import Placement, choose_placement, inspect, load_model
from sa2va_bento.model.loading.tokenizers import PromptTokenizer
from sa2va_bento.model.loading.weight_names import GAUSSIAN_IN_TREE, plan, to_intree, to_published
from sa2va_bento.model.registry import read_config
from sa2va_bento.model.weight_rules import WeightRules
from tests.parity.goldens import GOLDEN, module, write_checkpoint

CPU = Placement(torch.device("cpu"), torch.float32)
SAM = "grounding_encoder.sam2_model"
GAMMA = f"{SAM}.memory_encoder.fuser.layers.0.gamma"
POINTS = f"{SAM}.sam_prompt_encoder.point_embeddings"
QKV = "vision_model.encoder.layers.0.attn.qkv"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint("qwen2", tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "checkpoint"
    shutil.copytree(original, copy, copy_function=_link)
    return copy


def _link(source: str, target: str) -> None:
    """A link for the weights, a copy for what the tests edit."""
    Path(target).symlink_to(source) if source.endswith(".safetensors") else shutil.copy(source, target)


def edit_config(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))


def edit_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    path.unlink()
    save_file(tensors, path)


def load_internvl(folder: Path) -> InternVLSa2VA:
    model = load_model(folder, CPU)
    assert isinstance(model, InternVLSa2VA)
    return model


def test_key_map_is_its_own_inverse(original: Path) -> None:
    published = load_file(original / "model.safetensors")
    rules = read_config(original / "config.json").weight_rules
    back = to_published(to_intree(published, rules), rules)
    assert set(back) == set(published)
    assert all(torch.equal(back[name], published[name]) for name in published)


NONE = WeightRules()


def test_older_names_of_the_memory_fusers_scale_are_known() -> None:
    new = plan([GAMMA.replace("gamma", "g_weight")], NONE)
    assert list(plan([GAMMA], NONE)) == list(new) == list(plan([GAMMA.replace("gamma", "weight")], NONE))


def test_every_tensor_lands_and_nothing_stays_on_meta(original: Path) -> None:
    model = load_model(original, CPU)
    tensors = [*model.named_parameters(), *model.named_buffers()]
    assert not [name for name, tensor in tensors if tensor.is_meta]
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_bfloat16_leaves_the_coordinate_frequencies_in_float32(original: Path) -> None:
    model = load_model(original, Placement(torch.device("cpu"), torch.bfloat16))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    sam = model.grounding_encoder
    expected = load_file(original / "model.safetensors")[
        "grounding_encoder.sam2_model.sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"
    ]
    for module_ in (sam.shared_image_embedding, sam.prompt_encoder.shared_embedding):
        assert torch.equal(module_.positional_embedding, expected)


def test_shards_load_as_one_file_does(original: Path, tmp_path: Path) -> None:
    module("scripted/make_checkpoint").build("qwen2", str(tmp_path), 1, "Sure.", shards=3)
    assert len(list(tmp_path.glob("model-*.safetensors"))) == 3
    sharded = load_model(tmp_path, CPU).state_dict()
    for file in tmp_path.glob("model*"):
        file.unlink()
    module("scripted/make_checkpoint").build("qwen2", str(tmp_path), 1, "Sure.", shards=1)
    whole = load_model(tmp_path, CPU).state_dict()
    assert set(sharded) == set(whole)
    assert all(torch.equal(sharded[name], whole[name]) for name in whole)


def test_each_shard_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One at a time, so that no more than one is in memory beside the model."""
    module("scripted/make_checkpoint").build("qwen2", str(tmp_path), 1, "Sure.", shards=3)
    read: list[str] = []
    monkeypatch.setattr(weights, "read_ahead", lambda path: read.append(path.name))
    load_model(tmp_path, CPU)
    assert read == sorted(path.name for path in tmp_path.glob("model-*.safetensors"))


def test_tied_embeddings_need_no_head(folder: Path) -> None:
    edit_config(folder, lambda c: c["llm_config"].update(tie_word_embeddings=True))
    edit_weights(folder, lambda t: t.pop("language_model.lm_head.weight"))
    model = load_internvl(folder).language_model
    assert model.lm_head.weight is model.get_input_embeddings().weight


def test_a_head_of_its_own_wins_over_a_configuration_that_ties_it(folder: Path) -> None:
    edit_config(folder, lambda c: c["llm_config"].update(tie_word_embeddings=True))
    model = load_internvl(folder).language_model
    assert not torch.equal(model.lm_head.weight, model.get_input_embeddings().weight)


REFUSED_WEIGHTS: dict[str, tuple[Callable[[dict[str, torch.Tensor]], object], str]] = {
    "missing": (lambda t: t.pop("mlp1.1.bias"), r"model.safetensors: missing tensors: mlp1.1.bias$"),
    "missing-fused": (lambda t: t.pop(f"{QKV}.bias"), rf"missing tensors: {QKV}.bias$"),
    "missing-renamed": (lambda t: t.pop(f"{SAM}.no_mem_embed"), rf"missing tensors: {SAM}.no_mem_embed$"),
    "missing-joined": (lambda t: t.pop(f"{POINTS}.2.weight"), rf"missing tensors: {POINTS}.2.weight$"),
    "unknown": (
        lambda t: t.update({"extra.thing": torch.zeros(1)}),
        r"unknown tensors: extra.thing \(in model.safetensors\)",
    ),
    "unknown-in-a-part": (
        lambda t: t.update({"mlp1.9.bias": torch.zeros(1)}),
        r"unknown tensors: mlp1.9.bias \(in model.safetensors\)",
    ),
    "twice": (
        lambda t: t.update({GAMMA: torch.zeros(1), GAMMA.replace("gamma", "g_weight"): torch.zeros(1)}),
        r"gamma \(in model.safetensors\) and .*g_weight \(in model.safetensors\) are the same tensor",
    ),
    "misshaped": (
        lambda t: t.update({"mlp1.1.bias": torch.zeros(3)}),
        r"mlp1.1.bias \(in model.safetensors\) makes \(3,\), config.json says \(64,\)",
    ),
    "misshaped-fused": (
        lambda t: t.update({f"{QKV}.bias": torch.zeros(193)}),
        rf"{QKV}.bias \(in model.safetensors\) makes \(65,\), config.json says",
    ),
    "misshaped-joined": (
        lambda t: t.update({f"{POINTS}.2.weight": torch.zeros(2, t[f"{POINTS}.2.weight"].shape[1])}),
        rf"{POINTS}.0.weight \(in model.safetensors\) makes \(5, \d+\), config.json says \(4, \d+\)",
    ),
    "headless": (lambda t: t.pop("language_model.lm_head.weight"), "missing tensors: language_model.lm_head.weight"),
    "lora": (
        lambda t: t.update({"language_model.base_model.model.lm_head.weight": torch.zeros(1)}),
        "language_model.lm_head.weight and language_model.base_model.model.lm_head.weight are the same tensor",
    ),
}


@pytest.mark.parametrize("name", REFUSED_WEIGHTS)
def test_weights_that_do_not_fit_are_refused_by_name(folder: Path, name: str) -> None:
    change, message = REFUSED_WEIGHTS[name]
    edit_weights(folder, change)
    with pytest.raises(CheckpointError, match=message):
        load_model(folder, CPU)


@pytest.mark.parametrize("rows", [40, 96])
def test_a_fused_projection_that_does_not_divide_into_heads_is_refused_by_name(tmp_path: Path, rows: int) -> None:
    folder = write_checkpoint("internlm2", tmp_path)
    name = "language_model.model.layers.0.attention.wqkv.weight"
    edit_weights(folder, lambda t: t.update({name: torch.zeros(rows, t[name].shape[1])}))
    with pytest.raises(CheckpointError, match=rf"misshaped tensors: {name} \(in model.safetensors\) makes \({rows}, "):
        load_model(folder, CPU)


def test_a_missing_fused_projection_is_named_as_published(tmp_path: Path) -> None:
    folder = write_checkpoint("internlm2", tmp_path)
    names = [f"language_model.model.layers.0.{part}.weight" for part in ("attention.wqkv", "ffn_norm")]
    edit_weights(folder, lambda t: [t.pop(name) for name in names])
    with pytest.raises(CheckpointError, match=rf"model.safetensors: missing tensors: {', '.join(names)}$"):
        load_model(folder, CPU)


REFUSED_CONFIGS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "other-model": (lambda c: c.update(architectures=["LlavaForCausalLM"]), "LlavaForCausalLM is not supported"),
    "other-llm": (lambda c: c["llm_config"].update(architectures=["GPT2LMHeadModel"]), "GPT2LMHeadModel is not"),
    "template": (lambda c: c.update(template="vicuna"), "chat template vicuna"),
    "layer": (lambda c: c.update(select_layer=-2), "select_layer=-2"),
    "shuffle": (lambda c: c.update(ps_version="v1"), "ps_version='v1'"),
    "no-vision": (lambda c: c.pop("vision_config"), "lacks the field 'vision_config'"),
    "no-width": (lambda c: c["vision_config"].pop("hidden_size"), "lacks the field 'hidden_size'"),
    "native-typo": (
        lambda c: c["sa2va_native"]["sam2"].update(dmodel=9),
        "sa2va_native.sam2 has unknown fields: dmodel",
    ),
    "tile-size": (lambda c: c["sa2va_native"].update(tiles={"image_size": 224}), "is not the tile size 224"),
}


@pytest.mark.parametrize("name", REFUSED_CONFIGS)
def test_configurations_that_are_not_supported_are_refused(folder: Path, name: str) -> None:
    change, message = REFUSED_CONFIGS[name]
    edit_config(folder, change)
    with pytest.raises(CheckpointError, match=message):
        load_model(folder, CPU)


DAMAGED_FIELDS: dict[str, tuple[str, object]] = {
    "llm_config": ("llm_config", "x"),
    "word": ("vision_config.hidden_size", "wide"),
    "negative": ("vision_config.hidden_size", -1),
    "patchless": ("vision_config.patch_size", 0),
    "function": ("vision_config.hidden_act", "nope"),
    "headless": ("llm_config.num_attention_heads", 0),
    "heads": ("llm_config.num_key_value_heads", 3),
    "architectures": ("architectures", {"a": 1}),
}


@pytest.mark.parametrize("name", DAMAGED_FIELDS)
def test_damaged_fields_of_a_configuration_are_refused_in_one_line(folder: Path, name: str) -> None:
    field, value = DAMAGED_FIELDS[name]
    *parents, last = field.split(".")

    def damage(config: dict[str, Any]) -> None:
        for parent in parents:
            config = config[parent]
        config[last] = value

    edit_config(folder, damage)
    with pytest.raises(CheckpointError) as refusal:
        inspect(folder)
    assert "\n" not in refusal.value.message


def test_truncated_weights_are_refused_with_file_and_tensor(folder: Path) -> None:
    path = folder / "model.safetensors"
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[: len(content) - 5])
    with pytest.raises(
        CheckpointError, match=r"model.safetensors is not a complete safetensors file: it ends before \w+"
    ):
        load_model(folder, CPU)


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"\xff" * 64], ids=["empty", "page", "noise"])
def test_files_that_are_no_weights_are_refused_by_name(folder: Path, content: bytes) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model.safetensors is not a complete safetensors file"):
        load_model(folder, CPU)


def test_an_lfs_pointer_is_called_one(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(CheckpointError, match="it is a Git LFS pointer"):
        load_model(folder, CPU)


def test_quantised_weights_are_refused_by_name(folder: Path) -> None:
    edit_weights(folder, lambda t: t.update({"mlp1.1.bias": torch.zeros(64, dtype=torch.int8)}))
    with pytest.raises(CheckpointError, match=r"model.safetensors: mlp1.1.bias is I8, not one of"):
        load_model(folder, CPU)


def index(folder: Path, weight_map: dict[str, str]) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def test_an_index_that_is_wrong_about_a_tensor_is_refused(folder: Path) -> None:
    index(folder, {"mlp1.1.bias": "model.safetensors", "no.such": "model.safetensors"})
    with pytest.raises(CheckpointError, match=r"index.json: no.such is not in model.safetensors"):
        load_model(folder, CPU)


def test_an_index_can_not_name_files_elsewhere(folder: Path) -> None:
    index(folder, {"mlp1.1.bias": "../other/model.safetensors"})
    with pytest.raises(CheckpointError, match=r"names files outside of its folder: \.\./other"):
        load_model(folder, CPU)


def test_a_tensor_in_two_files_is_refused(folder: Path) -> None:
    save_file({"mlp1.1.bias": torch.zeros(64)}, folder / "second.safetensors")
    index(folder, {"mlp1.1.bias": "second.safetensors", "mlp1.1.weight": "model.safetensors"})
    with pytest.raises(CheckpointError, match=r"mlp1.1.bias is both in .*model.safetensors and in second.safetensors"):
        load_model(folder, CPU)


def test_loading_to_another_type_converts_every_tensor_but_the_frequencies(folder: Path) -> None:
    plain, half = load_model(folder, CPU), load_model(folder, Placement(torch.device("cpu"), torch.bfloat16))
    for (name, tensor), (_, converted) in zip(plain.state_dict().items(), half.state_dict().items(), strict=True):
        kept = name in GAUSSIAN_IN_TREE
        assert converted.dtype == (torch.float32 if kept else torch.bfloat16), name
        assert torch.equal(converted, tensor if kept else tensor.bfloat16()), name


def test_pickled_weights_are_refused(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="pickle is never loaded"):
        load_model(folder, CPU)


def test_a_missing_shard_is_named(folder: Path) -> None:
    index = {"weight_map": {"mlp1.1.bias": "model-00001-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=r"lacks model-00001-of-00002\.safetensors"):
        load_model(folder, CPU)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"architectures": []}'])
def test_config_files_that_are_none_are_refused(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    with pytest.raises(CheckpointError):
        load_model(folder, CPU)


@pytest.mark.parametrize("device", ["cuda:99", "teapot"])
def test_a_device_that_is_not_here_is_refused(device: str) -> None:
    with pytest.raises(CheckpointError, match=device):
        choose_placement(device, "auto")


def test_an_unknown_tokenizer_is_refused(folder: Path) -> None:
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "MysteryTokenizer"}')
    with pytest.raises(CheckpointError, match="MysteryTokenizer is not supported"):
        PromptTokenizer.from_dir(folder)


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"model": {', '{"added_tokens": []}'])
@pytest.mark.parametrize("file", ["tokenizer.json", "tokenizer_config.json"])
def test_a_damaged_tokenizer_is_refused_in_one_line(folder: Path, file: str, content: str) -> None:
    (folder / file).write_text(content)
    with pytest.raises(CheckpointError) as refusal:
        PromptTokenizer.from_dir(folder)
    assert "\n" not in refusal.value.message
    assert "tokenizer" in refusal.value.message


@pytest.mark.parametrize("size", [0, 100])
def test_a_damaged_sentencepiece_model_is_refused_in_one_line(tmp_path: Path, size: int) -> None:
    copy = shutil.copytree(GOLDEN / "internlm2_tokenizer" / "internlm2_tok_dummy0", tmp_path / "copy")
    model = copy / "tokenizer.model"
    model.write_bytes(model.read_bytes()[:size])
    with pytest.raises(CheckpointError, match=r"^(the tokenizer|the InternLM2 tokenizer) in .*can't be \w+: .*$"):
        PromptTokenizer.from_dir(copy)


def test_a_tokenizer_without_seg_is_refused() -> None:
    with pytest.raises(CheckpointError, match="lacks the token <nope>"):
        PromptTokenizer.from_dir(GOLDEN / "tokenizer").id_of("<nope>")
