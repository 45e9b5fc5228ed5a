import json

import numpy as np
import pytest
from signal_media import SKIMAGE, batch, open_image

from curate.models.torchvision_shim import ensure_torchvision
from curate.schema.errors import CurateError
from curate.schema.fields import RunsOn
from curate.schema.recipe import Caption
from curate.schema.verdict import Failure
from curate.signals.captioner import Captioner, TransformersCaptioner
from curate.signals.captions import CaptionerOptions, CaptionerSignal


def _tokenizer():
    from transformers import BertTokenizer

    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "picture",
        *(f"w{i}" for i in range(58)),
    ]  # one word of the prompt
    return BertTokenizer(vocab={word: i for i, word in enumerate(words)})


def _blip(folder):
    from transformers import BlipConfig, BlipForConditionalGeneration, BlipImageProcessor, BlipProcessor

    tiny = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    ids = {"vocab_size": 64, "bos_token_id": 2, "eos_token_id": 3, "sep_token_id": 3, "pad_token_id": 0}
    config = BlipConfig(
        text_config={**tiny, **ids, "encoder_hidden_size": 32, "max_position_embeddings": 160},
        vision_config={**tiny, "image_size": 32, "patch_size": 16},
        projection_dim=16,
    )
    BlipForConditionalGeneration(config).save_pretrained(folder)
    BlipProcessor(BlipImageProcessor(size={"height": 32, "width": 32}), _tokenizer()).save_pretrained(folder)


def _vit_gpt2(folder):
    from transformers import (
        GPT2Config,
        GPT2LMHeadModel,
        VisionEncoderDecoderModel,
        ViTConfig,
        ViTImageProcessor,
        ViTModel,
    )

    vision = ViTConfig(
        hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=16
    )
    words = GPT2Config(
        vocab_size=64,
        n_positions=160,
        n_embd=32,
        n_layer=1,
        n_head=2,
        add_cross_attention=True,
        bos_token_id=2,
        eos_token_id=3,
    )
    model = VisionEncoderDecoderModel(encoder=ViTModel(vision), decoder=GPT2LMHeadModel(words))
    for config in (model.config, model.generation_config):
        config.decoder_start_token_id, config.pad_token_id, config.eos_token_id = 2, 0, 3
    model.generation_config.suppress_tokens, model.generation_config.min_new_tokens = [0, 1, 2, 4, 5], 3
    model.save_pretrained(folder)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    _tokenizer().save_pretrained(folder)


def _llava(folder):
    """A chat model: it gets a question with a place for the image, and repeats it before the answer."""
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    tiny = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    tokenizer = _tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**tiny, image_size=32, patch_size=16),
        text_config=LlamaConfig(**tiny, vocab_size=65, max_position_embeddings=256, bos_token_id=2, eos_token_id=3),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
    )
    model = LlavaForConditionalGeneration(config)
    model.generation_config.suppress_tokens, model.generation_config.min_new_tokens = [0, 1, 2, 4, 5, 64], 3
    model.generation_config.pad_token_id = 0
    model.save_pretrained(folder)
    template = (
        "{% for m in messages %}{% for c in m.content %}"
        "{% if c.type == 'image' %}<image>{% else %} {{ c.text }}{% endif %}{% endfor %}{% endfor %}"
    )
    LlavaProcessor(
        CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
        tokenizer,
        patch_size=16,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template,
    ).save_pretrained(folder)


@pytest.fixture(scope="module", params=[_blip, _vit_gpt2, _llava], ids=["blip", "vit-gpt2", "llava"])
def model(request, tmp_path_factory):
    """A folder with a small model of a real class, with random weights."""
    ensure_torchvision()
    import torch

    folder = tmp_path_factory.mktemp("captioner")
    torch.manual_seed(5)
    request.param(folder)
    return folder


def test_a_saved_model_captions_an_image_and_says_the_same_again(model):
    captioner = TransformersCaptioner(str(model))
    captioner.load()
    frame = np.asarray(open_image(SKIMAGE / "coffee.png"))
    caption = captioner(frame)
    assert set(caption.replace("[UNK]", "").split()) <= {f"w{i}" for i in range(58)}  # no special tokens, no prompt
    assert caption
    assert captioner(frame) == caption


PICTURES = ("coffee.png", "chelsea.png", "astronaut.png", "rocket.jpg", "page.png")


def test_a_batch_of_images_has_the_captions_of_each_alone(model):
    captioner = TransformersCaptioner(str(model), 12)
    captioner.load()
    frames = [np.asarray(open_image(SKIMAGE / name)) for name in PICTURES]
    prompts = ["picture", "picture picture picture", "[MASK] picture", "", "w1 w2 w3 w4 w5"]  # of different lengths
    asked = list(zip(frames, prompts, strict=True))
    alone = [captioner(frame, prompt) for frame, prompt in asked]
    assert captioner._answered(asked) == alone
    assert len(set(alone)) > 1 or "Blip" in type(captioner._model).__name__  # random weights, deaf to what they see
    sizes, inner = [], captioner._model.generate
    captioner._model.generate = lambda **given: [sizes.append(len(given["pixel_values"])), inner(**given)][1]
    captioner._passes.size = 4
    assert captioner.answers(asked) == alone
    assert sizes == [4, 4]
    assert captioner.batch(frames[:1]) == [captioner(frames[0])]


def test_a_batch_of_captions_that_does_not_fit_is_halved(model):
    import torch

    captioner = TransformersCaptioner(str(model), 5)
    captioner.load()
    frames = [np.asarray(open_image(SKIMAGE / name)) for name in PICTURES[:3]]
    alone, inner = [captioner(frame) for frame in frames], captioner._model.generate

    def generate(**given):
        if len(given["pixel_values"]) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return inner(**given)

    captioner._model.generate, captioner._passes.size = generate, 4
    assert captioner.batch(frames) == alone
    assert captioner._passes.halved == 3  # of four places, then of two halves of two


def test_words_of_scores_that_are_no_numbers_are_a_failure_that_names_the_dtype(model):
    signal = _signal(model)
    signal.on = RunsOn("cpu", "bfloat16", 1)
    signal.load()
    media = [("image", SKIMAGE / "coffee.png")]
    [fine] = signal(batch(signal, *media))
    assert fine["captioner"]
    for weight in signal._local._model.parameters():
        weight.data.fill_(float("nan"))
    [failed] = signal(batch(signal, *media))
    assert isinstance(failed, Failure)
    assert (failed.error, failed.message[:45]) == ("NotFiniteError", "the network gave NaN or infinity in bfloat16;")


def _signal(model, **more):
    """The captioner of a recipe's short form, or of an entry with more keys."""
    entry = {"name": "captioner", "model": str(model), **more}
    (use,) = Caption(**({"captioners": [entry]} if more else {"captioner": str(model)})).uses
    return CaptionerSignal(CaptionerOptions(use=use))


def test_the_signal_asks_the_captioner_only_where_no_text_was_given(model):
    signal = _signal(model)
    assert signal.cost.model
    signal.load()
    media = [("image", SKIMAGE / "coffee.png")] * 2
    given, made = signal(batch(signal, *media, text=["A cup", None]))
    assert given == {"captioner": None, "captioner_by": None}
    assert made["captioner"]
    assert json.loads(made["captioner_by"])["model"] == str(model)


def test_the_version_names_the_weights(model, tmp_path):
    version = TransformersCaptioner(str(model)).version()
    for file in model.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    assert TransformersCaptioner(str(tmp_path)).version() == version
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\1")
    assert TransformersCaptioner(str(tmp_path)).version() != version


def test_pickled_weights_and_missing_folders_are_refused_before_anything_runs(tmp_path):
    with pytest.raises(CurateError, match="does not exist"):
        _signal(tmp_path / "nowhere")
    with pytest.raises(CurateError, match=r"no transformers model \(config.json\)"):
        TransformersCaptioner(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(CurateError, match="pickled ones are refused"):
        TransformersCaptioner(str(tmp_path))


def test_a_model_of_another_kind_is_one_sentence(tmp_path):
    ensure_torchvision()
    from transformers import BertConfig, BertModel

    BertModel(
        BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    ).save_pretrained(tmp_path)
    with pytest.raises(CurateError, match="cannot be loaded"):
        TransformersCaptioner(str(tmp_path)).load()


def test_a_chat_model_is_asked_the_prompt_of_the_recipe(tmp_path):
    ensure_torchvision()
    import torch

    torch.manual_seed(5)
    _llava(tmp_path)
    media = [("image", SKIMAGE / "coffee.png")]
    said = []
    for prompt in ("picture", "[MASK] {text} picture picture"):
        signal = _signal(tmp_path, prompt=prompt, sampling={"max_tokens": 5})
        signal.load()
        said += signal(batch(signal, *media, text=["picture"]))
    assert said[0]["captioner"] != said[1]["captioner"]
    assert all(len(one["captioner"].split()) <= 5 for one in said)


class Own(Captioner):
    """A captioner that sees nothing else than the image."""

    def __call__(self, frame):
        return f"An image of {frame.shape[1]} by {frame.shape[0]}."


def test_one_of_your_own_takes_no_prompt():
    with pytest.raises(CurateError, match="of your own and sees the image alone"):
        _signal(f"{__name__}:Own", prompt="What?")


class Several(Own):
    """One that does several at once, and says how many."""

    def batch(self, frames):
        return [f"One of {len(frames)}." for _ in frames]


def test_one_of_your_own_sees_several_images_at_once_on_a_gpu_where_it_says_how():
    said = []
    for name in ("Own", "Several"):
        for on in (RunsOn("cpu", "float32", 2), RunsOn("cuda", "float32", 2)):
            signal = _signal(f"{__name__}:{name}")
            signal.on = on
            signal.load()
            found = signal(batch(signal, *[("image", SKIMAGE / "coffee.png")] * 3))
            assert signal._local.on == on
            said.append([one["captioner"].split(".")[0] for one in found])
    plain = ["An image of 448 by 299"] * 3
    assert said == [plain, plain, plain, ["One of 2", "One of 2", "One of 1"]]
