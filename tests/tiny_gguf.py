"""Makes a tiny model and serves it with llama.cpp: `python -m tests.tiny_gguf FOLDER`. `tiny_model` starts it.

The model is a Llama of one block whose attention and feed-forward weights are zero: what comes next depends on the last
token alone, and the output matrix says how. So it always says `SENTENCE`, in milliseconds.
"""

import sys
import threading
from pathlib import Path

import gguf
import numpy as np
import xllamacpp

from tests.tiny_model import API_KEY, NAME, WORDS

_CONTEXT = 8192  # tokens per request
_PARALLEL = 4
_END = 2  # its number in the vocabulary: <unk> <s> </s>, the 256 bytes, the words, padding
_BYTES = 256
_HEAD = 32  # width of an attention head; the vocabulary, and with it the width of the model, is a multiple of it


def vocabulary() -> list[str]:
    """In SentencePiece's spelling: U+2581 is the space before a word."""
    words = [word if word == "." else f"\N{LOWER ONE EIGHTH BLOCK}{word}" for word in WORDS]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(_BYTES)), *words]
    padding = -len(tokens) % _HEAD
    return [*tokens, *(f"[unused{number}]" for number in range(padding))]


def write_gguf(path: Path) -> None:
    tokens = vocabulary()
    width, first = len(tokens), 3 + _BYTES
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(_CONTEXT)
    writer.add_embedding_length(width)
    writer.add_block_count(1)
    writer.add_feed_forward_length(_HEAD)
    writer.add_head_count(width // _HEAD)
    writer.add_head_count_kv(width // _HEAD)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(_HEAD)
    writer.add_vocab_size(width)
    writer.add_file_type(0)  # all 32-bit floats
    writer.add_tokenizer_model("llama")
    writer.add_token_list([token.encode() for token in tokens])
    writer.add_token_scores([0.0] * 3 + [-1000.0] * _BYTES + [-10.0] * (width - first))  # words before bytes
    kind = gguf.TokenType
    kinds = [kind.UNKNOWN, kind.CONTROL, kind.CONTROL] + [kind.BYTE] * _BYTES + [kind.NORMAL] * len(WORDS)
    writer.add_token_types(kinds + [kind.UNUSED] * (width - len(kinds)))
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(_END)
    writer.add_chat_template("{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:")

    following = np.zeros((width, width), np.float32)  # [next, last]
    following[first] = 1  # after anything else the sentence begins
    for number in range(len(WORDS)):
        following[first, first + number] = 0
        following[first + number + 1 if number + 1 < len(WORDS) else _END, first + number] = 1
    ones = np.ones(width, np.float32)
    writer.add_tensor("token_embd.weight", np.eye(width, dtype=np.float32))
    writer.add_tensor("output_norm.weight", ones)
    writer.add_tensor("output.weight", following)
    writer.add_tensor("blk.0.attn_norm.weight", ones)
    writer.add_tensor("blk.0.ffn_norm.weight", ones)
    square = np.zeros((width, width), np.float32)
    for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
        writer.add_tensor(f"blk.0.{name}.weight", square)
    writer.add_tensor("blk.0.ffn_gate.weight", np.zeros((_HEAD, width), np.float32))
    writer.add_tensor("blk.0.ffn_up.weight", np.zeros((_HEAD, width), np.float32))
    writer.add_tensor("blk.0.ffn_down.weight", np.zeros((width, _HEAD), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def serve(model: Path) -> None:
    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.model_alias = {NAME}
    params.hostnames = ["127.0.0.1"]
    params.port = 0  # any free one
    params.api_keys = [API_KEY]
    params.n_parallel = _PARALLEL
    params.n_ctx = _CONTEXT * _PARALLEL
    params.cpuparams.n_threads = 1
    params.n_threads_http = 8  # each open stream holds one
    params.warmup = False
    params.sampling.temp = 0.0
    server = xllamacpp.Server(params)
    sys.stdout.write(f"listening {server.listening_address}\n")
    sys.stdout.flush()
    threading.Event().wait()


if __name__ == "__main__":
    gguf_file = Path(sys.argv[1]) / "tiny.gguf"
    write_gguf(gguf_file)
    serve(gguf_file)
