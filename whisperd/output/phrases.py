"""Small words of five languages, by which a line can tell where a phrase begins and what belongs together.

A subtitle breaks before a conjunction or preposition, and not between an article or preposition and its noun (Netflix,
Timed Text Style Guide, "Line Treatment"; Diaz Cintas and Remael, Audiovisual Translation: Subtitling, 2007).
"""

from __future__ import annotations

import functools

# Each language: words that join sentences and clauses, prepositions, and what stands before a noun.
_CLAUSES = {
    "en": "and but or nor so yet because although though while whereas if unless until when whenever where wherever which who "
    "whom whose that than since before after as",
    "fr": "et mais ou donc or ni car que qui dont où lorsque quand puisque parce si comme tandis alors afin",
    "de": "und aber oder denn sondern dass weil obwohl wenn als ob während damit nachdem bevor sodass wo wie",
    "es": "y e o u pero sino ni que porque aunque cuando donde mientras si como pues quien quienes cuyo cuya",
    "it": "e ed o ma né che perché anche quando dove mentre se come poiché benché affinché cui",
}
_PREPOSITIONS = {
    "en": "of to in on at by for with from into onto over under about against between through during without within along "
    "among around across behind beyond near toward towards upon via per like",
    "fr": "de du des d à au aux en dans sur sous par pour avec sans entre vers chez contre depuis pendant selon",
    "de": "in im ins an am ans auf aus bei beim mit nach von vom zu zum zur für durch gegen ohne um über unter vor hinter "
    "neben zwischen seit bis wegen trotz",
    "es": "de del a al en con por para sin sobre bajo entre hacia hasta desde según contra durante",
    "it": "di del dello della dei degli delle a al allo alla ai agli alle da dal dallo dalla dai dagli dalle in nel nello nella "
    "nei negli nelle su sul sullo sulla sui sugli sulle con per tra fra",
}
_DETERMINERS = {
    "en": "a an the my your his her its our their this these those every each no some any",
    "fr": "le la les l un une mon ton son ma ta sa mes tes ses notre votre nos vos leur leurs ce cet cette ces chaque même ne",
    "de": "der die das den dem des ein eine einen einem einer eines mein meine dein deine sein seine ihr ihre unser unsere "
    "euer eure dieser diese dieses diesen diesem kein keine keinen jeder jede jedes",
    "es": "el la los las lo un una unos unas mi mis tu tus su sus nuestro nuestra nuestros nuestras este esta estos estas ese "
    "esa esos esas cada",
    "it": "il lo la i gli le l un uno una mio mia tuo tua suo sua nostro nostra vostro vostra questo questa questi queste "
    "quel quella ogni",
}


@functools.cache
def clause_words(language: str) -> frozenset[str]:
    """Words that begin a clause; none for a language that is not known."""
    return _words(_CLAUSES, language)


@functools.cache
def prepositions(language: str) -> frozenset[str]:
    """Words that begin a phrase and belong to the noun after them."""
    return _words(_PREPOSITIONS, language)


@functools.cache
def binding_words(language: str) -> frozenset[str]:
    """Words with which no line ends: prepositions, what stands before a noun, and what begins a clause."""
    return _words(_PREPOSITIONS, language) | _words(_DETERMINERS, language) | _words(_CLAUSES, language)


@functools.cache
def function_words(language: str) -> frozenset[str]:
    """All small words of a language: none of them is a name."""
    return binding_words(language)


def _words(table: dict[str, str], language: str) -> frozenset[str]:
    return frozenset(table.get(language, "").split())
