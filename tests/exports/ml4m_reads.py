"""Run by a Python that can import ml-4m, without curate: its own functions read an export of it.

    python ml4m_reads.py CHECKOUT FOLDER MODALITIES SHARDS

The last two as its URLs have them, `rgb,crop_settings,...` and the number of the last shard. A JSON line a sample: of
each array its type, shape and values.
"""

import json
import sys

import numpy as np


def read(folder, modalities, last):
    import torch

    # a torchvision that was built for another torch has no operators, and declares them all the same
    declared = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        declared.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import webdataset as wds
    from fourm.data.image_augmenter import PreTokenizedImageAugmenter
    from fourm.data.modality_transforms import CaptionTransform, RGBTransform, TokTransform, UnifiedDataTransform
    from fourm.data.unified_datasets import (
        multi_tarfile_samples,
        remove_extensions,
        tok_to_int64,
        wds_decoder,
    )

    transforms = {"rgb": RGBTransform(), "caption": CaptionTransform()}
    transforms |= {name.partition("@")[0]: TokTransform() for name in modalities.split(",") if name.startswith("tok_")}
    augmented = UnifiedDataTransform(transforms, PreTokenizedImageAugmenter(32))
    urls = f"{folder}/[{modalities}]/shard-{{00000..{last:05d}}}.tar"
    pipeline = wds.DataPipeline(wds.SimpleShardList(urls), multi_tarfile_samples, wds.decode(wds_decoder))
    for sample in pipeline:
        key = sample.pop("__key__")
        sample.pop("__url__")
        yield key, augmented(tok_to_int64(remove_extensions(sample)))


def said(value):
    if hasattr(value, "numpy"):
        value = value.numpy()
    if isinstance(value, np.ndarray):
        return [value.dtype.name, list(value.shape), value.tolist()]
    return value


if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])
    for key, sample in read(sys.argv[2], sys.argv[3], int(sys.argv[4])):
        print("SAMPLE " + json.dumps([key, {name: said(value) for name, value in sample.items()}]))
