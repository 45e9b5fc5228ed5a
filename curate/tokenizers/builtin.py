"""Names of the classes of this room: what `curate.plugins` knows without importing them."""

from __future__ import annotations

ARCHITECTURES = {
    "image-fsq": "curate.tokenizers.image.fsq:ImageFSQ",
    "video-fsq": "curate.tokenizers.video.fsq:VideoFSQ",
    "audio-rvq": "curate.tokenizers.audio.rvq:AudioRVQ",
    "text-bpe": "curate.tokenizers.text.bpe:TextBPE",
    "mask-vq": "curate.tokenizers.labels.mask_vq:MaskVQ",
    "labelled": "curate.tokenizers.labels.labelled:Labelled",
    "cosmos-di": "curate.tokenizers.adapters.cosmos:CosmosDI",
    "cosmos-dv": "curate.tokenizers.adapters.cosmos:CosmosDV",
    "chameleon-vq": "curate.tokenizers.adapters.chameleon:ChameleonVQ",
    "emu3-vq": "curate.tokenizers.adapters.emu3:Emu3Picture",
    "emu3-vq-video": "curate.tokenizers.adapters.emu3:Emu3Clip",
    "llamagen-vq": "curate.tokenizers.adapters.llamagen:LlamaGenVQ",
    "taming-vqgan": "curate.tokenizers.adapters.taming:TamingVQGAN",
    "ibq": "curate.tokenizers.adapters.open_magvit2:IBQ",
    "open-magvit2": "curate.tokenizers.adapters.open_magvit2:OpenMagvit2",
    "titok": "curate.tokenizers.adapters.titok:TiTok",
    "4m-vq": "curate.tokenizers.adapters.fourm_vq:FourMVQ",
    "4m-memcodes": "curate.tokenizers.adapters.fourm_memcodes:FourMMemcodes",
    "4m-memcodes-pictures": "curate.tokenizers.adapters.fourm_memcodes:MemcodesOfPictures",
    "4m-words": "curate.tokenizers.fourm.words:WordsTokenizer",
    "4m-wordpiece": "curate.tokenizers.fourm.wordpiece:WordPiece4M",
    "lyra": "curate.tokenizers.adapters.lyra:Lyra",
    "encodec": "curate.tokenizers.adapters.audio_transformers:Encodec",
    "dac": "curate.tokenizers.adapters.audio_transformers:Dac",
    "mimi": "curate.tokenizers.adapters.audio_transformers:Mimi",
    "features": "curate.tokenizers.features.quantised:QuantisedFeatures",
    "features-topk": "curate.tokenizers.features.topk_streams:TopKIds",
    "features-topk-odds": "curate.tokenizers.features.topk_streams:TopKOdds",
    "continuous": "curate.tokenizers.features.continuous:ContinuousFeatures",
    "t5": "curate.tokenizers.features.t5:T5Features",
    "vqvae": "curate.tokenizers.adapters.vqvae:VQVAE",
    "dvae": "curate.tokenizers.adapters.dvae:DVAE",
}
"""Classes that read the weights of a tokenizer, by the architecture that its card names."""

LABELERS = {
    "canny": "curate.tokenizers.labels.canny:Canny",
    "deeplab": "curate.tokenizers.labels.deeplab:DeepLab",
    "metadata": "curate.tokenizers.labels.metadata:MetadataLabeler",
    "movenet": "curate.tokenizers.labels.movenet:MoveNet",
    "palette": "curate.tokenizers.labels.palette:PaletteLabeler",
    "transformers-boxes": "curate.tokenizers.labels.transformers_labelers:TransformersBoxes",
    "transformers-depth": "curate.tokenizers.labels.transformers_labelers:TransformersDepth",
    "transformers-sam": "curate.tokenizers.labels.sam:TransformersSAM",
    "transformers-segmentation": "curate.tokenizers.labels.transformers_labelers:TransformersSegmentation",
    "yunet": "curate.tokenizers.labels.yunet:YuNet",
}
"""Classes that say what is in a picture (`curate.tokenizers.labels.base`)."""

ENCODERS = {
    "efficientnet-lite0": "curate.tokenizers.features.encoders:EfficientNetEncoder",
    "open_clip": "curate.tokenizers.features.encoders:OpenClipEncoder",
    "timm": "curate.tokenizers.features.encoders:TimmEncoder",
}
"""Classes that make features of pictures, by the library that their models are of."""
