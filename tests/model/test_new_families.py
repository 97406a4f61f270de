"""What is known of LLaVA's layout and of SAM3's tracker beside the goldens: published sizes, what `check` says, and
which frames are looked back to."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sa2va_bento.cli.main import main
from sa2va_bento.errors import CheckpointError
from sa2va_bento.model.loading.checkpoint import inspect
from sa2va_bento.model.loading.memory import measures_of, parameter_counts
from sa2va_bento.model.loading.published import PUBLISHED, Published
from sa2va_bento.model.memory_bank import Memory, MemoryBank
from sa2va_bento.model.registry import parse_config
from tests.model.test_qwen_vl import published
from tests.parity.goldens import write_scripted_checkpoint

SAM3_TENSOR = "grounding_encoder.sam2_model.backbone.vision_backbone.trunk.pos_embed"

LLAVA: dict[str, Any] = {
    "architectures": ["Sa2VAChatModelLlava"],
    "template": "vicuna",
    "image_token_index": 32000,
    "vision_feature_layer": -2,
    "vision_feature_select_strategy": "default",
    "projector_hidden_act": "gelu",
    "text_config": {
        "model_type": "llama",
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "vocab_size": 32007,
    },
    "vision_config": {
        "model_type": "clip_vision_model",
        "hidden_size": 1024,
        "image_size": 336,
        "intermediate_size": 4096,
        "num_attention_heads": 16,
        "num_hidden_layers": 24,
        "patch_size": 14,
        "projection_dim": 768,
        "vocab_size": 32000,
    },
}
"""As published: of the language model only what is not Llama-7B's."""


def known(name: str) -> Published:
    return next(found for found in PUBLISHED if found.model == f"ByteDance/Sa2VA-{name}")


def test_llava_has_its_published_size() -> None:
    config = parse_config(LLAVA)
    counts = parameter_counts(config)
    unread_layer = 12_596_224
    assert sum(counts.values()) + unread_layer == pytest.approx(7_305_220_402, abs=1e6)
    assert measures_of(config) == known("LLaVA-1.5-7B").measures
    assert measures_of(config, 4) == known("LLaVA-1.5-7B").measures


def test_sam3_is_told_by_its_tensors_and_has_its_published_size() -> None:
    raw = published("qwen3_vl")
    raw["tie_word_embeddings"] = False
    raw["text_config"]["vocab_size"] = 151_674
    config = parse_config(raw, [SAM3_TENSOR])
    counts = parameter_counts(config)
    detector_neck = 7_802_112
    assert counts["grounding_encoder"] + detector_neck == pytest.approx(473_585_538, abs=3000)
    assert sum(counts.values()) / 1e9 == pytest.approx(known("Qwen3-VL-4B-SAM3").billions, abs=0.01)
    found, told = measures_of(config), known("Qwen3-VL-4B-SAM3").measures
    assert (found.sam2_side, found.sam2_embed, found.sam2_model) == (told.sam2_side, told.sam2_embed, 256)
    assert parse_config(raw).grounding.name == "SAM2"


@pytest.fixture(scope="module")
def sam3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scripted_checkpoint("qwen3_vl_sam3_one", tmp_path_factory.mktemp("sam3"))


def test_check_names_the_tracker_and_its_licence(sam3: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(sam3)]) == 0
    said = capsys.readouterr().out
    assert "SAM3: 4 layers of 32, pictures of 1008 pixels" in said
    assert "whatever its page says: SAM License (Meta)" in said


def test_models_lists_all_families(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    said = capsys.readouterr().out
    for name in ("Sa2VA-Qwen3-VL-4B-SAM3 ", "Sa2VA-LLaVA-1.5-7B ", "SaSaSa2VA-26B ", "SaSaSa2VAChatModel", "SAM3"):
        assert name in said


def test_tensors_that_nobody_knows_are_named(sam3: Path, tmp_path: Path) -> None:
    for file in sam3.glob("*.json"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tensors = load_file(sam3 / "model.safetensors")
    new = SAM3_TENSOR.replace("trunk.pos_embed", "trunk.registers")
    save_file({**tensors, new: torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"unknown tensors: .*trunk\.registers \(in model\.safetensors\)"):
        inspect(tmp_path)


def test_a_newer_family_is_described() -> None:
    raw = {**LLAVA, "architectures": ["Sa2VAChatModelNext"], "model_type": "sa2va_next"}
    with pytest.raises(CheckpointError, match=r"Sa2VAChatModelNext is not supported.*model_type sa2va_next, .*vicuna"):
        parse_config(raw)
    with pytest.raises(CheckpointError, match=r"text_config\.model_type mistral is not supported"):
        parse_config({**LLAVA, "text_config": {"model_type": "mistral", "vocab_size": 10}})
    with pytest.raises(CheckpointError, match="vision_feature_select_strategy='full' is not supported"):
        parse_config({**LLAVA, "vision_feature_select_strategy": "full"})


def memory(frame: int) -> Memory:
    return Memory(torch.tensor(frame), torch.tensor(frame))


def test_the_nearest_conditioning_frames_are_looked_back_to_and_the_others_count_as_any() -> None:
    bank = MemoryBank(maps=7, pointers=16, attended=4, conditioning={frame: memory(frame) for frame in range(5)})
    bank.add(5, memory(5))
    assert sorted((row, int(kept)) for _, row, kept in bank.maps_for(6)) == [
        *((0, 5), (5, 0)),
        *((6, frame) for frame in (1, 2, 3, 4)),
    ]
    assert sorted((ago, int(pointer)) for ago, pointer in bank.pointers_for(6)) == [
        (6 - f, f) for f in range(5, -1, -1)
    ]
    assert all(int(kept) != 0 for _, _, kept in bank.maps_for(7))
    assert (15, 0) in [(ago, int(pointer)) for ago, pointer in bank.pointers_for(15)]
    assert all(int(pointer) != 0 for _, pointer in bank.pointers_for(16))


def test_the_last_frame_before_and_the_first_after_are_always_looked_at() -> None:
    bank = MemoryBank(maps=7, pointers=16, attended=4, conditioning={f: memory(f) for f in (0, 11, 12, 13, 14)})
    assert sorted(frame for frame, row, _ in bank.maps_for(10) if row == 6) == [0, 11, 12, 13]
    assert [int(pointer) for _, pointer in bank.pointers_for(10)] == [0]
