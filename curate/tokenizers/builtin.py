"""Names of the classes of this room: what `curate.plugins` knows without importing them."""

from __future__ import annotations

from dataclasses import replace

from curate.schema.fields import Resources

ARCHITECTURES = {
    "image-fsq": "curate.tokenizers.codecs.image_fsq:ImageFSQ",
    "video-fsq": "curate.tokenizers.codecs.video_fsq:VideoFSQ",
    "audio-rvq": "curate.tokenizers.codecs.audio_rvq:AudioRVQ",
    "text-bpe": "curate.tokenizers.codecs.text_bpe:TextBPE",
    "mask-vq": "curate.tokenizers.codecs.mask_vq:MaskVQ",
    "labelled": "curate.tokenizers.codecs.label_maps:LabelMaps",
    "cosmos-di": "curate.tokenizers.codecs.cosmos:CosmosDI",
    "cosmos-dv": "curate.tokenizers.codecs.cosmos:CosmosDV",
    "chameleon-vq": "curate.tokenizers.codecs.chameleon:ChameleonVQ",
    "emu3-vq": "curate.tokenizers.codecs.emu3:Emu3Image",
    "emu3-vq-video": "curate.tokenizers.codecs.emu3:Emu3Clip",
    "llamagen-vq": "curate.tokenizers.codecs.llamagen:LlamaGenVQ",
    "taming-vqgan": "curate.tokenizers.codecs.vqgan:TamingVQGAN",
    "ibq": "curate.tokenizers.codecs.vqgan:IBQ",
    "open-magvit2": "curate.tokenizers.codecs.open_magvit2:OpenMagvit2",
    "titok": "curate.tokenizers.codecs.titok:TiTok",
    "4m-vq": "curate.tokenizers.codecs.fourm_vq:FourMVQ",
    "4m-memcodes": "curate.tokenizers.codecs.fourm_memcodes:FourMMemcodes",
    "4m-memcodes-pictures": "curate.tokenizers.codecs.fourm_memcodes:MemcodesOfImages",
    "4m-labels": "curate.exports.fourm.labels:LabelWords",
    "4m-words": "curate.exports.fourm.words:WordsTokenizer",
    "4m-wordpiece": "curate.exports.fourm.wordpiece:WordPiece4M",
    "lyra": "curate.tokenizers.codecs.lyra:Lyra",
    "encodec": "curate.tokenizers.codecs.audio_transformers:Encodec",
    "dac": "curate.tokenizers.codecs.audio_transformers:Dac",
    "mimi": "curate.tokenizers.codecs.audio_transformers:Mimi",
    "features": "curate.tokenizers.codecs.quantised_features:QuantisedFeatures",
    "features-topk": "curate.tokenizers.codecs.topk:TopKIds",
    "features-topk-odds": "curate.tokenizers.codecs.topk:TopKOdds",
    "continuous": "curate.tokenizers.codecs.continuous_features:ContinuousFeatures",
    "t5": "curate.tokenizers.codecs.t5:T5Features",
    "vqvae": "curate.tokenizers.codecs.vqvae:VQVAE",
    "dvae": "curate.tokenizers.codecs.dvae:DVAE",
}
"""Classes that read the weights of a tokenizer, by the architecture that its card names."""

# Those that encode in bfloat16 say on their card how many ids that changes. Others hold their quantiser inside a
# network of another's, which would round it too, or are programs with numbers of their own.
_BOTH = ("float32", "bfloat16")
_GRIDS = Resources(gpus=0.25, batch=8, dtypes=_BOTH, model=True)
_ONE_BY_ONE = Resources(gpus=0.25, dtypes=_BOTH, model=True)  # clips and audio pass the network whole
_ON_CPUS = Resources(model=True)

COSTS = {
    **dict.fromkeys(("image-fsq", "chameleon-vq", "emu3-vq", "llamagen-vq", "taming-vqgan", "ibq"), _GRIDS),
    **dict.fromkeys(("open-magvit2", "titok", "4m-vq", "4m-memcodes", "vqvae", "dvae"), _GRIDS),
    **dict.fromkeys(("4m-memcodes-pictures", "features", "features-topk", "features-topk-odds", "continuous"), _GRIDS),
    **dict.fromkeys(("labelled", "cosmos-di"), replace(_GRIDS, dtypes=("float32",))),
    **dict.fromkeys(("video-fsq", "emu3-vq-video", "audio-rvq", "t5"), _ONE_BY_ONE),
    **dict.fromkeys(("cosmos-dv", "encodec", "dac", "mimi"), replace(_ONE_BY_ONE, dtypes=("float32",))),
    **dict.fromkeys(("mask-vq", "lyra"), _ON_CPUS),
    **dict.fromkeys(("text-bpe", "4m-labels", "4m-words", "4m-wordpiece"), Resources()),
}
"""What one worker of a tokenizer takes, and the numbers that it can compute in, by its architecture: a table, so that
who plans a run imports no network."""

FILES = {
    "text-bpe": ("tokenizer.json",),
    "labelled": ("labels.json",),
    "cosmos-di": ("encoder.jit", "decoder.jit"),
    "cosmos-dv": ("encoder.jit", "decoder.jit"),
    "4m-labels": ("labels.json",),
    "4m-words": ("words.json",),
    "4m-wordpiece": ("tokenizer.json",),
    "lyra": ("soundstream_encoder.tflite", "quantizer.tflite", "lyragan.tflite"),
    "continuous": ("encoder.json",),
    "t5": ("weights.safetensors", "tokenizer.json", "config.json"),
}
"""Files that a tokenizer reads beside its card, by its architecture, where that is not `weights.safetensors` alone."""

ENCODERS = {
    "efficientnet-lite0": "curate.models.encoders:EfficientNetEncoder",
    "open_clip": "curate.models.encoders:OpenClipEncoder",
    "timm": "curate.models.encoders:TimmEncoder",
}
"""Classes that make features of images, by the library that their models are of."""
