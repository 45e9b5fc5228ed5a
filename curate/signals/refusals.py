"""How a model begins that refuses to describe what it was shown."""

from __future__ import annotations

import re

REFUSALS = {
    "en": (
        r"(i['’]?m|i am) (so |very |really )?sorry\b",
        r"sorry[,.!]",
        r"i apologi[sz]e",
        r"i can(['’]?t|not| not)\b",
        r"(i['’]?m|i am) (unable|not able|an? (ai|language model))\b",
        r"as an? (ai|language model)\b",
        r"i (won['’]?t|will not|do not|don['’]?t|must decline)\b",
        r"unfortunately, i\b",
    ),
    "de": (
        r"(es )?tut mir (sehr )?leid",
        r"entschuldigung[,.!]",
        r"leider kann ich\b",
        r"ich kann (\w+ ){0,3}(nicht|kein)",
        r"ich bin (nicht in der lage|ein sprachmodell|eine ki)\b",
        r"als (ki|sprachmodell|künstliche intelligenz)\b",
    ),
    "fr": (
        r"(je suis )?désolée?\b",
        r"je ne (peux|suis) pas\b",
        r"je suis une? (ia|intelligence artificielle|modèle)\b",
        r"en tant qu['’]?(e |une? )*(ia|intelligence artificielle|modèle|assistant)\b",
    ),
    "es": (
        r"lo (siento|lamento)\b",
        r"no puedo\b",
        r"soy una? (ia|inteligencia artificial|modelo)\b",
        r"como (una? )?(ia|inteligencia artificial|modelo de lenguaje)\b",
    ),
    "pt": (
        r"desculpe\b",
        r"(sinto muito|lamento)[,.]",
        r"(eu )?não (posso|consigo)\b",
        r"como (uma? )?(ia|inteligência artificial|modelo de linguagem)\b",
    ),
    "it": (
        r"mi (dispiace|scuso)\b",
        r"non (posso|sono in grado)\b",
        r"come (una? )?(ia|intelligenza artificiale|modello linguistico)\b",
    ),
    "ru": (
        r"(извините|простите)\b",
        r"к сожалению, я\b",
        r"я не (могу|в состоянии)\b",
        r"как (ии|искусственный интеллект|языковая модель)\b",
    ),
    "zh": (
        r"(很|非常|十分)?(抱歉|遗憾|遺憾)",
        r"(对不起|對不起)",
        r"我(无法|無法|不能|不可以)",
        r"作[为為](一[个個名])?(ai|人工智能|人工智慧|语言模型|語言模型)",
    ),
    "ja": (
        r"申し訳(ありません|ございません)",
        r"(すみません|ごめんなさい)",
        r"(私は)?(ai|人工知能|言語モデル)(として|であ|です)",
    ),
    "ko": (
        r"(죄송|미안)(합니다|하지만)",
        r"(저는 )?(ai|인공지능|언어 모델)(로서|이므로|입니다)",
    ),
}
"""By language: beginnings of a refusal, in the first person, as no caption begins; of text in composed form (NFC)."""

REFUSAL = re.compile(rf"\W*(?:{'|'.join(one for many in REFUSALS.values() for one in many)})", re.IGNORECASE)
