"""The nano model's shape: its `config.json` in the published layout, and the numbers that training counts with."""

from typing import Any

from sa2va_bento.model.chat_template import CHATML

END_OF_TURN, END_OF_TEXT = CHATML.stop_words  # `<|im_end|>` and `<|endoftext|>`
VIT_WIDTH, VIT_LAYERS, VIT_HEADS = 128, 6, 4
LLM_WIDTH, LLM_LAYERS, LLM_HEADS, LLM_KV_HEADS, LLM_MLP = 192, 6, 6, 2, 512
SAM_WIDTH, SAM_SIZE = 128, 256
TILE_SIZE, PATCH = 224, 14
CELLS = TILE_SIZE // PATCH // 2  # cells along a side: an image token covers 28 x 28 pixels of the tile
IMAGE_TOKENS = CELLS**2
MAX_POSITIONS = 4096


def config_dict(vocab_size: int, token_ids: dict[str, int]) -> dict[str, Any]:
    """`config.json` for a vocabulary of `vocab_size`; `token_ids` gives `END_OF_TEXT` and `END_OF_TURN`."""
    return {
        "architectures": ["Sa2VAChatModel"],
        "model_type": "sa2va_chat",
        "dtype": "bfloat16",
        "template": CHATML.name,
        "select_layer": -1,
        "force_image_size": TILE_SIZE,
        "downsample_ratio": 0.5,
        "ps_version": "v2",
        "dynamic_image_size": True,
        "use_thumbnail": False,
        "min_dynamic_patch": 1,
        "max_dynamic_patch": 1,
        "use_backbone_lora": 0,
        "use_llm_lora": 0,
        "vision_config": _vision(),
        "llm_config": _language(vocab_size, token_ids),
        "sa2va_native": {
            "sam2": {
                "image_size": SAM_SIZE,
                "d_model": SAM_WIDTH,
                "embed_dim": 32,
                "num_heads": 1,
                "stages": [1, 1, 2, 1],
                "global_att_blocks": [3],
                "window_spec": [8, 4, 16, 8],
                "window_pos_embed_bkg_spatial_size": [7, 7],
                "memory_attention_layers": 2,
                "memory_attention_dim_feedforward": 512,
                "mask_decoder_mlp_dim": 512,
            },
            "tiles": {"image_size": TILE_SIZE, "max": 1, "thumbnail": False},
        },
    }


def _vision() -> dict[str, Any]:
    return {
        "architectures": ["InternVisionModel"],
        "model_type": "intern_vit_6b",
        "hidden_size": VIT_WIDTH,
        "intermediate_size": 4 * VIT_WIDTH,
        "num_attention_heads": VIT_HEADS,
        "num_hidden_layers": VIT_LAYERS,
        "image_size": TILE_SIZE,
        "patch_size": PATCH,
        "qkv_bias": True,
        "qk_normalization": False,
        "norm_type": "layer_norm",
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-6,
        "initializer_factor": 0.1,
    }


def _language(vocab_size: int, token_ids: dict[str, int]) -> dict[str, Any]:
    return {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "vocab_size": vocab_size,
        "hidden_size": LLM_WIDTH,
        "intermediate_size": LLM_MLP,
        "num_hidden_layers": LLM_LAYERS,
        "num_attention_heads": LLM_HEADS,
        "num_key_value_heads": LLM_KV_HEADS,
        "max_position_embeddings": MAX_POSITIONS,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        "use_sliding_window": False,
        "attention_dropout": 0.0,
        "bos_token_id": token_ids[END_OF_TEXT],
        "eos_token_id": token_ids[END_OF_TURN],
    }
