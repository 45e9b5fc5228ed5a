"""Text as T5 encoder states (Raffel et al. 2020, arXiv 1910.10683): the conditioning of VideoPoet and 4M-21."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from curate.models.batches import exact
from curate.models.passes import fitting
from curate.models.torchvision_shim import ensure_torchvision
from curate.models.weights import load_state_strict, locate, read_config, read_state
from curate.schema.codec import CodecCard
from curate.schema.errors import CurateError
from curate.schema.fields import RunsOn
from curate.schema.ids import digest
from curate.tokenizers.codecs.continuous_features import to_float16, widen
from curate.tokenizers.folders import WEIGHTS, check_digest, code_version, read_card, read_files, write_folder
from tokenizers import Tokenizer as Pieces

MAX_PIECES = 77
_FILES = (WEIGHTS, "tokenizer.json", "config.json")
_TIED = "encoder.embed_tokens.weight"
_NONE = "\ufdd0"  # a noncharacter of Unicode: no text holds it


class T5Features:
    """Captions to float16 `(n, d)`, one row a piece and one for the end mark, n <= 77.

    Each caption passes alone and unpadded. A caption that spells a special token (`</s>`, `<extra_id_0>`) is
    split as plain text. `decode` widens to float32; there is no way back to text.
    """

    def __init__(self, card: CodecCard, net: Any, pieces: Any, device: str = "cpu", dtype: str = "float32") -> None:
        self.card = card
        self._device, self._dtype = torch.device(device), dtype
        with fitting(card.name, RunsOn(device, dtype)):
            self._net = net.float().eval().requires_grad_(False).to(self._device)
        self._pieces = pieces
        self._end = int(net.config.eos_token_id)

    @classmethod
    def load(cls, folder: Path, device: str = "cpu", dtype: str = "float32") -> T5Features:
        """Reads `card.json`, `config.json`, `tokenizer.json` and `weights.safetensors`; `dtype` is `float32` or
        `bfloat16`, by autocast."""
        card, parts = read_card(folder), read_files(folder, _FILES)
        check_digest(folder, card, _digest(parts))
        net = _net(folder)
        state = load_tensors(parts[0])
        load_state_strict(net, state | {_TIED: state["shared.weight"]}, card.name)
        return cls(card, net, plain_pieces(parts[1]), device, dtype)

    @classmethod
    def import_checkpoint(cls, source: str, folder: Path, stream: str = "t5_caption") -> CodecCard:
        """From a local folder or hub id of a T5 with safetensors and `tokenizer.json`; a decoder is left out.

        Raises:
            CurateError: nothing there is a T5, or it has no safetensors weights or no `tokenizer.json`.
        """
        (config,), (told,) = (locate(source, [name])[:1] for name in ("config.json", "tokenizer.json"))
        state: dict[str, Any] = {}
        for path in locate(source, ["*.safetensors"]):
            state |= read_state(path)
        if "shared.weight" not in state and _TIED in state:
            state["shared.weight"] = state[_TIED]
        kept = {k: v.contiguous() for k, v in state.items() if k == "shared.weight" or k.startswith("encoder.")}
        kept.pop(_TIED, None)
        if "shared.weight" not in kept:
            raise CurateError(f"{source} holds no T5 encoder", "it has no tensor shared.weight")
        plain_pieces(told.read_bytes())
        folder.mkdir(parents=True, exist_ok=True)
        parts = [save_tensors(kept), told.read_bytes(), config.read_bytes()]
        for name, raw in zip(_FILES, parts, strict=True):
            (folder / name).write_bytes(raw)
        net = _net(folder)
        load_state_strict(net, kept | {_TIED: kept["shared.weight"]}, source)
        card = CodecCard(
            name=folder.name,
            architecture="t5",
            modality="text",
            stream=stream,
            quantiser="none",
            index_order="rows are pieces in order, the last one is of the end mark",
            vocabulary=0,
            dtype="float16",
            features=int(net.config.d_model),
            input=f"a caption; the first {MAX_PIECES - 1} of its pieces",
            chunking=f"cut to {MAX_PIECES} rows with the end mark",
            padding="none",
            valid_length="all rows are valid",
            weights_digest=_digest(parts),
            code_version=code_version("torch", "transformers"),
            parameters=sum(v.numel() for v in kept.values()),
            trained_on="as its publisher states",
            licence="as its publisher states",
        )
        write_folder(folder, card, {})
        return card

    def encode(self, items: Sequence[str]) -> list[NDArray[np.generic]]:
        """Captions to `(n, d)` float16; ValueError for what is no text, or for states that float16 cannot hold."""
        return [self._one(item) for item in items]

    def decode(self, ids: Sequence[NDArray[np.generic]], lengths: Sequence[int] | None = None) -> list[Any]:
        """The same as float32."""
        return [widen(one, self.card.features) for one in ids]

    def _one(self, item: str) -> NDArray[np.generic]:
        if not isinstance(item, str):
            raise ValueError(f"{self.card.name} expects text, got {type(item).__name__}")
        pieces = self._pieces.encode(item.replace(_NONE, ""), add_special_tokens=False).ids
        ids = [*pieces[: MAX_PIECES - 1], self._end]
        with exact(self._device, self._dtype):
            states = self._net(input_ids=torch.tensor([ids], device=self._device)).last_hidden_state[0]
        return to_float16(states.float().cpu().numpy())


def plain_pieces(raw: bytes) -> Any:
    """The pieces of a `tokenizer.json`, without any way to a special one through text.

    T5's special tokens are pieces of its unigram model too, with the best score of all, so that it is not enough to
    stop looking for them beforehand: they are renamed to what no caption holds. Ids stay as they are.

    Raises:
        CurateError: it is not the file of a unigram model.
    """
    try:
        told = json.loads(raw)
        special = {token["content"] for token in told["added_tokens"] if token["special"]}
        if told["model"]["type"] != "Unigram":
            raise CurateError(f"tokenizer.json holds {told['model']['type']}, not the unigram model of a T5")
        vocabulary = told["model"]["vocab"]
        told["model"]["vocab"] = [
            [f"{_NONE}{i}" if piece in special else piece, score] for i, (piece, score) in enumerate(vocabulary)
        ]
        told |= {"added_tokens": [], "post_processor": None, "padding": None, "truncation": None}
        return Pieces.from_str(json.dumps(told))
    except CurateError:
        raise
    except Exception as error:  # the library raises the bare class
        raise CurateError(f"tokenizer.json cannot be read: {error}") from error


def _net(folder: Path) -> Any:
    ensure_torchvision()
    from transformers import T5Config, T5EncoderModel

    told = read_config(folder / "config.json")
    if told.get("model_type") != "t5":
        raise CurateError(f"{folder.name} is a {told.get('model_type')}, not a T5", "give a T5 or T5 v1.1 model")
    return T5EncoderModel(T5Config.from_dict(told))


def _digest(parts: Sequence[bytes]) -> str:
    """Over weights, pieces and configuration: any of them changes the states."""
    return digest("".join(digest(part) for part in parts).encode())
