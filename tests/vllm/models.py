#!/usr/bin/env python3
"""Writes a tiny model with random weights and LoRA adapters for it: models.py FOLDER. The same files each time.

FOLDER/base is a Llama of 0.4 million parameters. It knows nothing, but it likes what ends a sentence and dislikes what
begins a text or a comment, so that what it says inside a grammar comes to an end. This needs nothing but Python.
FOLDER/adapters are good ones, FOLDER/bad what an engine has to refuse.
"""

import array
import json
import pathlib
import random
import struct
import sys

HIDDEN, LAYERS, HEADS, KV_HEADS, HEAD_DIM, INNER = 128, 2, 2, 1, 64, 256  # vLLM's kernel for CPUs takes no head of 16
CONTEXT = 16384
PREFIX = "base_model.model.model.layers"
SPECIAL = ["<s>", "</s>", "<|role|>", "<|end|>"]
# Tokens of more than a byte, so that they cross the borders of a grammar's rules.
WORDS = ["self", " self", "balance", " balance: ", " := ", " = (", " )", ". ", "^self", " + ", "with", "draw: "]
# Logits that tokens have beside chance, those of one letter each.
LIKED = [(")=", 4), (" ]}|.", 2), ("(abcdefghijklmn", 1), ("\"'", -5)]
CONSTANT = 16.0
CHAT = (
    "{% for message in messages %}<|role|>{{ message['role'] }}\n{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|role|>assistant\n{% endif %}"
)
# (name, rank, modules)
GOOD = [
    ("poet", 8, ["q_proj", "v_proj"]),
    ("ledger", 16, ["q_proj", "k_proj", "v_proj", "o_proj"]),
    ("smith", 8, ["gate_proj", "up_proj", "down_proj"]),
    ("scribe", 1, ["o_proj"]),
]


def byte_letters():
    """The letter that stands for each byte in a byte-level vocabulary (GPT-2's table)."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return {byte: chr(byte) for byte in plain} | {byte: chr(256 + at) for at, byte in enumerate(others)}


def vocabulary():
    """Ids by token, and the merges that make the longer ones."""
    letters = byte_letters()
    tokens, merges = [*SPECIAL, *letters.values()], []
    for word in WORDS:
        spelt = [letters[byte] for byte in word.encode()]
        for end in range(1, len(spelt)):
            left, right = "".join(spelt[:end]), spelt[end]
            if left + right not in tokens:
                tokens.append(left + right)
                merges.append([left, right])
    return {token: at for at, token in enumerate(tokens)}, merges


def write_json(path, value):
    path.write_text(json.dumps(value, indent=1) + "\n")


def write_tensors(path, tensors):
    """safetensors: the length of a header in JSON, the header, the tensors' bytes. `tensors`: name → (shape, floats)"""
    header, data = {}, bytearray()
    for name, (shape, values) in tensors.items():
        values = array.array("f", values).tobytes()
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + len(values)]}
        data += values
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def sizes(module):
    """(in, out) of a projection."""
    return {
        "q_proj": (HIDDEN, HEADS * HEAD_DIM),
        "k_proj": (HIDDEN, KV_HEADS * HEAD_DIM),
        "v_proj": (HIDDEN, KV_HEADS * HEAD_DIM),
        "o_proj": (HEADS * HEAD_DIM, HIDDEN),
        "gate_proj": (HIDDEN, INNER),
        "up_proj": (HIDDEN, INNER),
        "down_proj": (INNER, HIDDEN),
    }[module]


def place(module):
    return f"self_attn.{module}" if module[0] in "qkvo" else f"mlp.{module}"


def base(folder):
    folder.mkdir(parents=True)
    dice = random.Random("base")
    ids, merges = vocabulary()

    def noise(rows, columns, deviation, first=None):
        """`first`: the values of the first column, or of the first row when it is a number."""
        values = [dice.gauss(0, deviation) for _ in range(rows * columns)]
        if isinstance(first, list):
            values[::columns] = first
        elif first is not None:
            values[:columns] = [first] * columns
        return [rows, columns], values

    ones = [HIDDEN], [1.0] * HIDDEN
    letters = byte_letters()
    liked = {letters[ord(letter)]: how for those, how in LIKED for letter in those}
    # The first number of each state is CONSTANT throughout, so that the first column of lm_head is what is liked.
    scale = ((CONSTANT**2 + HIDDEN - 1) / HIDDEN) ** 0.5 / CONSTANT
    tensors = {
        "model.embed_tokens.weight": noise(len(ids), HIDDEN, 1, [CONSTANT] * len(ids)),
        "model.norm.weight": ones,
        "lm_head.weight": noise(len(ids), HIDDEN, 0.1, [liked.get(token, 0) * scale for token in ids]),
    }
    for layer in range(LAYERS):
        for module in ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]:
            inputs, outputs = sizes(module)
            first = 0.0 if module in ("o_proj", "down_proj") else None
            tensors[f"model.layers.{layer}.{place(module)}.weight"] = noise(outputs, inputs, inputs**-0.5, first)
        tensors[f"model.layers.{layer}.input_layernorm.weight"] = ones
        tensors[f"model.layers.{layer}.post_attention_layernorm.weight"] = ones
    write_tensors(folder / "model.safetensors", tensors)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": len(ids),
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": HEAD_DIM,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "max_position_embeddings": CONTEXT,
        "tie_word_embeddings": False,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "torch_dtype": "float32",
    }
    write_json(folder / "config.json", config)
    write_json(folder / "generation_config.json", {"bos_token_id": 0, "eos_token_id": 1})
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    tokenizer = {
        "version": "1.0",
        "added_tokens": [{"id": ids[token], "content": token, **special} for token in SPECIAL],
        "pre_tokenizer": byte_level,
        "decoder": byte_level,
        "model": {"type": "BPE", "vocab": ids, "merges": merges},
    }
    write_json(folder / "tokenizer.json", tokenizer)
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}
    write_json(folder / "tokenizer_config.json", {**settings, "chat_template": CHAT, "model_max_length": CONTEXT})


def adapter(folder, rank, modules, hidden=HIDDEN, **unusual):
    """An adapter in the form that PEFT saves; `hidden` is the size of another model."""
    folder.mkdir(parents=True)
    dice = random.Random(folder.name)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "base",
        "r": rank,
        "lora_alpha": 2 * rank,
        "target_modules": modules,
        "bias": "none",
        "modules_to_save": None,
        **unusual,
    }
    write_json(folder / "adapter_config.json", config)
    tensors = {}
    for layer in range(LAYERS):
        for module in modules:
            inputs, outputs = (hidden if size == HIDDEN else size for size in sizes(module))
            for side, rows, columns in [("A", rank, inputs), ("B", outputs, rank)]:
                values = [dice.gauss(0, 0.1) for _ in range(rows * columns)]
                tensors[f"{PREFIX}.{layer}.{place(module)}.lora_{side}.weight"] = [rows, columns], values
    write_tensors(folder / "adapter_model.safetensors", tensors)


def bad(folder):
    """One for each thing that may be wrong."""
    attention = ["q_proj", "v_proj"]
    adapter(folder / "rank", 32, attention)
    adapter(folder / "narrow", 8, attention, hidden=64)
    adapter(folder / "wide", 8, attention, hidden=256)
    adapter(folder / "dora", 8, attention, use_dora=True)
    adapter(folder / "bias", 8, attention, bias="all")
    adapter(folder / "saved", 8, attention, modules_to_save=["lm_head"])
    adapter(folder / "no-rank", 8, attention)
    config = json.loads((folder / "no-rank" / "adapter_config.json").read_text())
    del config["r"]
    write_json(folder / "no-rank" / "adapter_config.json", config)
    adapter(folder / "unknown-module", 8, attention, target_modules=["nowhere"])
    for name in ["no-config", "no-tensors", "torn", "no-json"]:
        adapter(folder / name, 8, attention)
    (folder / "no-config" / "adapter_config.json").unlink()
    (folder / "no-tensors" / "adapter_model.safetensors").unlink()
    torn = folder / "torn" / "adapter_model.safetensors"
    torn.write_bytes(torn.read_bytes()[:-64])
    (folder / "no-json" / "adapter_config.json").write_text("{")


def main():
    folder = pathlib.Path(sys.argv[1])
    base(folder / "base")
    for name, rank, modules in GOOD:
        adapter(folder / "adapters" / name, rank, modules)
    bad(folder / "bad")


if __name__ == "__main__":
    main()
