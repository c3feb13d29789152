"""The languages that the models of openai-whisper know, by the codes and names of its tokenizer.

They are listed here because importing the tokenizer loads torch, which the supervisor must not; a test compares the lists.
"""

from __future__ import annotations

_CODES = """
en zh de es ru ko fr ja pt tr pl ca nl ar sv it id hi fi vi he uk el ms cs ro da hu ta no th ur hr bg lt la mi
ml cy sk te fa lv bn sr az sl kn et mk br eu is hy ne mn bs kk sq sw gl mr pa si km sn yo so af oc ka be tg sd
gu am yi lo uz fo ht ps tk nn mt sa lb my bo tl mg as tt haw ln ha ba jw su yue
"""
_NAMES = """
afrikaans, albanian, amharic, arabic, armenian, assamese, azerbaijani, bashkir, basque, belarusian, bengali,
bosnian, breton, bulgarian, burmese, cantonese, castilian, catalan, chinese, croatian, czech, danish, dutch,
english, estonian, faroese, finnish, flemish, french, galician, georgian, german, greek, gujarati, haitian,
haitian creole, hausa, hawaiian, hebrew, hindi, hungarian, icelandic, indonesian, italian, japanese, javanese,
kannada, kazakh, khmer, korean, lao, latin, latvian, letzeburgesch, lingala, lithuanian, luxembourgish,
macedonian, malagasy, malay, malayalam, maltese, mandarin, maori, marathi, moldavian, moldovan, mongolian,
myanmar, nepali, norwegian, nynorsk, occitan, panjabi, pashto, persian, polish, portuguese, punjabi, pushto,
romanian, russian, sanskrit, serbian, shona, sindhi, sinhala, sinhalese, slovak, slovenian, somali, spanish,
sundanese, swahili, swedish, tagalog, tajik, tamil, tatar, telugu, thai, tibetan, turkish, turkmen, ukrainian,
urdu, uzbek, valencian, vietnamese, welsh, yiddish, yoruba
"""
LANGUAGES = frozenset(_CODES.split()) | frozenset(" ".join(_NAMES.split()).split(", "))  # codes, and names in English


def checked(language: str) -> str:
    """Return the language unchanged if a model knows it, in upper or lower case.

    Raises:
        ValueError: no model knows it.
    """
    if language.lower() not in LANGUAGES:
        raise ValueError("must be a language that Whisper knows, by its code such as en, de or fr, or its English name")
    return language
