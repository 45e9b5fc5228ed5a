"""Sets of captions that published data sets have, as prompts and JSON schemas that a recipe names.

`hunyuanvideo`: the seven parts of HunyuanVideo's structured captions and its 14 camera movements (Kong et al. 2024,
arXiv 2412.03603, section 3.2; there a classifier of its own says the movement). `skyreels`: those of SkyCaptioner-V1
(Chen et al. 2025, "SkyReels-V2"). `lengths`: three captions in one call. `rewrite`: one of given text and caption,
after BLIP3-KALE (Awadalla et al. 2024), which keeps what only the given text knows, and EasyAnimate (Xu et al. 2024,
arXiv 2405.18991), which rewrites captions by a language model. `howtovqa`: questions with their answers from speech,
after HowToVQA69M (Yang et al. 2021, "Just ask"), where two T5 models draw answers from punctuated speech and ask for
them. Names of parts are theirs, the words are ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Preset:
    """A prompt and the JSON schema of its answer.

    Attributes:
        prompt: a template; `{caption}` stands for the field that the recipe's `of` names.
        frames: of a clip, where the recipe says nothing; 0 for words alone.
        properties: of the answer, all of them required.
    """

    prompt: str
    frames: int
    properties: Mapping[str, Any]

    @property
    def schema(self) -> dict[str, Any]:
        return {"type": "object", "properties": dict(self.properties)}


def _text(about: str) -> dict[str, Any]:
    return {"type": "string", "description": about}


CAMERA_MOVES = (
    *("zoom in", "zoom out", "pan up", "pan down", "pan left", "pan right", "tilt up", "tilt down"),
    *("tilt left", "tilt right", "around left", "around right", "static shot", "handheld shot"),
)

_ORDER = "The images are frames of one clip in their order in time; a single one is a still image. "
_TRUE = " Say only what can be seen."

PRESETS = {
    "hunyuanvideo": Preset(
        f"{_ORDER}Describe it part by part.{_TRUE}",
        8,
        {
            "short_description": _text("The main content in one sentence."),
            "dense_description": _text("The content in detail, with changes of scene and what the camera does."),
            "background": _text("The surroundings of the subject."),
            "style": _text("The style, such as documentary, cinematic, realistic or sci-fi."),
            "shot_type": _text("The shot, such as aerial shot, close-up shot, medium shot or long shot."),
            "lighting": _text("The light."),
            "atmosphere": _text("The mood, such as cozy, tense or mysterious."),
            "camera_motion": {
                "type": "string",
                "enum": list(CAMERA_MOVES),
                "description": "The movement of the camera; static shot for a still image.",
            },
        },
    ),
    "skyreels": Preset(
        f"{_ORDER}Describe its subjects, the shot and the scene.{_TRUE} A part that does not apply is an empty string.",
        8,
        {
            "subjects": {
                "type": "array",
                "description": "Each subject, the main one first.",
                "items": {
                    "type": "object",
                    "properties": {
                        "type": _text("The sort of subject, such as human or animal."),
                        "sub_type": _text("The sort within it, such as woman or dog."),
                        "appearance": _text("The looks."),
                        "action": _text("The action in time."),
                        "expression": _text("The expression of a face."),
                        "position": _text("The place in the frame, or by other things."),
                        "is_main_subject": {"type": "boolean"},
                    },
                },
            },
            "shot_type": _text("The shot, such as close-up or long shot."),
            "shot_angle": _text("The angle, such as eye level, high angle or low angle."),
            "shot_position": _text("Where the camera stands to the subject, such as front view or over the shoulder."),
            "camera_motion": _text("The movement of the camera."),
            "environment": _text("The scene around the subjects."),
            "lighting": _text("The light."),
        },
    ),
    "lengths": Preset(
        f"{_ORDER}Caption it three times.{_TRUE}",
        1,
        {
            "short": _text("A caption of at most ten words."),
            "medium": _text("A caption of one or two sentences."),
            "long": _text("A caption of a paragraph with all that matters."),
        },
    ),
    "rewrite": Preset(
        "A description of an image or a clip: {caption}\nText that came with it: {text}\n"
        "Write one caption of both. Keep names, places and facts of the text that fit the description, leave out of it "
        "what does not (advertising, file names, addresses), and add nothing.",
        0,
        {"caption": _text("The caption of both.")},
    ),
    "howtovqa": Preset(
        "Speech in a clip: {asr_text}\nWrite questions that the clip answers, each with its answer in a few words of "
        "the speech. Leave out what needs more than this clip. Where there is nothing to ask, write none.",
        0,
        {
            "pairs": {
                "type": "array",
                "description": "Questions with their answers, in the order of the speech.",
                "items": {
                    "type": "object",
                    "properties": {
                        "question": _text("A question, whole without the others."),
                        "answer": _text("Its answer in a few words of the speech."),
                    },
                },
            }
        },
    ),
}
