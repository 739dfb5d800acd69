"""The words of the embedded corpus in English, German and French, with their inflection.

About 105 (English), 130 (German) and 145 (French) word forms. The key of a noun, a verb or an
adjective is its English base form; a place has a name of its own.
"""

from dataclasses import dataclass
from typing import Literal

Gender = Literal["m", "f", "n"]


@dataclass(frozen=True)
class Noun:
    """``english`` is "singular plural"; ``german`` and ``french`` begin with the gender.

    ``german`` ends with the accusative singular where that differs from the nominative.
    """

    english: str
    german: str
    french: str
    qualities: str
    """The adjectives it may bear, in English."""
    states: str = ""
    """Those it may only be said to be: "the dog is tired"."""

    @property
    def key(self) -> str:
        """The English singular."""
        return self.english.split()[0]


@dataclass(frozen=True)
class Adjective:
    english: str
    german: str
    """The stem."""
    french: str
    """Masculine and feminine singular, masculine and feminine plural, masculine before a vowel."""
    aspect: Literal["size", "age", "color", "state"]


@dataclass(frozen=True)
class Verb:
    """Finite singular, finite plural, infinitive; the German infinitive is the plural form."""

    english: tuple[str, str, str]
    german: tuple[str, str]
    french: tuple[str, str, str]


@dataclass(frozen=True)
class Phrase:
    """An adverbial or a pronoun that is the same wherever it stands."""

    english: str
    german: str
    french: str
    gender: Gender = "n"


NUMBERS: dict[str, tuple[str, str]] = {
    "two": ("zwei", "deux"),
    "three": ("drei", "trois"),
    "four": ("vier", "quatre"),
    "five": ("fünf", "cinq"),
    "six": ("sechs", "six"),
}


def _doing(base: str, participle: str) -> tuple[str, str, str]:
    return (f"is {participle}", f"are {participle}", base)


NOUNS: dict[str, Noun] = {
    noun.key: noun
    for noun in (
        Noun("man men", "m mann männer", "m homme hommes", "old", "tired"),
        Noun("woman women", "f frau frauen", "f femme femmes", "old", "tired"),
        Noun("boy boys", "m junge jungen jungen", "m garçon garçons", "small", "tired"),
        Noun("girl girls", "n mädchen mädchen", "f fille filles", "small", "tired"),
        Noun("child children", "n kind kinder", "m enfant enfants", "small", "tired"),
        Noun("dog dogs", "m hund hunde", "m chien chiens", "small big old black white", "tired"),
        Noun("cat cats", "f katze katzen", "m chat chats", "small old black white", "tired"),
        Noun("bird birds", "m vogel vögel", "m oiseau oiseaux", "small big black white", "tired"),
        Noun(
            "horse horses",
            "n pferd pferde",
            "m cheval chevaux",
            "small big old black white",
            "tired",
        ),
        Noun("apple apples", "m apfel äpfel", "f pomme pommes", "small red green"),
        Noun("cake cakes", "m kuchen kuchen", "m gâteau gâteaux", "small big"),
        Noun("book books", "n buch bücher", "m livre livres", "small big old red green"),
        Noun("letter letters", "m brief briefe", "f lettre lettres", "old"),
        Noun("flower flowers", "f blume blumen", "f fleur fleurs", "small big red white"),
        Noun("car cars", "n auto autos", "f voiture voitures", "small big old red green black"),
        Noun("house houses", "n haus häuser", "f maison maisons", "small big old red white"),
    )
}

ADJECTIVES: dict[str, Adjective] = {
    adjective.english: adjective
    for adjective in (
        Adjective("small", "klein", "petit petite petits petites petit", "size"),
        Adjective("big", "groß", "grand grande grands grandes grand", "size"),
        Adjective("old", "alt", "vieux vieille vieux vieilles vieil", "age"),
        Adjective("red", "rot", "rouge rouge rouges rouges rouge", "color"),
        Adjective("green", "grün", "vert verte verts vertes vert", "color"),
        Adjective("white", "weiß", "blanc blanche blancs blanches blanc", "color"),
        Adjective("black", "schwarz", "noir noire noirs noires noir", "color"),
        Adjective("tired", "müde", "fatigué fatiguée fatigués fatiguées fatigué", "state"),
    )
}

HE = Phrase("he", "er", "il", "m")
SHE = Phrase("she", "sie", "elle", "f")

BE = Verb(("is", "are", "be"), ("ist", "sind"), ("est", "sont", "être"))
WANT = Verb(("wants to", "want to", ""), ("will", "wollen"), ("veut", "veulent", ""))
CAN = Verb(("can", "can", ""), ("kann", "können"), ("peut", "peuvent", ""))

VERBS: dict[str, Verb] = {
    verb.english[2]: verb
    for verb in (
        Verb(_doing("play", "playing"), ("spielt", "spielen"), ("joue", "jouent", "jouer")),
        Verb(_doing("sleep", "sleeping"), ("schläft", "schlafen"), ("dort", "dorment", "dormir")),
        Verb(_doing("run", "running"), ("rennt", "rennen"), ("court", "courent", "courir")),
        Verb(_doing("sing", "singing"), ("singt", "singen"), ("chante", "chantent", "chanter")),
        Verb(
            _doing("work", "working"),
            ("arbeitet", "arbeiten"),
            ("travaille", "travaillent", "travailler"),
        ),
        Verb(_doing("wait", "waiting"), ("wartet", "warten"), ("attend", "attendent", "attendre")),
        Verb(("sees", "see", "see"), ("sieht", "sehen"), ("voit", "voient", "voir")),
        Verb(_doing("buy", "buying"), ("kauft", "kaufen"), ("achète", "achètent", "acheter")),
        Verb(_doing("read", "reading"), ("liest", "lesen"), ("lit", "lisent", "lire")),
        Verb(_doing("eat", "eating"), ("isst", "essen"), ("mange", "mangent", "manger")),
        Verb(
            _doing("look for", "looking for"),
            ("sucht", "suchen"),
            ("cherche", "cherchent", "chercher"),
        ),
        Verb(("has", "have", "have"), ("hat", "haben"), ("a", "ont", "avoir")),
    )
}

PLACES: dict[str, Phrase] = {
    "garden": Phrase("in the garden", "im garten", "dans le jardin"),
    "house": Phrase("in the house", "im haus", "dans la maison"),
    "kitchen": Phrase("in the kitchen", "in der küche", "dans la cuisine"),
    "park": Phrase("in the park", "im park", "dans le parc"),
    "car": Phrase("in the car", "im auto", "dans la voiture"),
    "street": Phrase("in the street", "auf der straße", "dans la rue"),
    "beach": Phrase("on the beach", "am strand", "sur la plage"),
    "school": Phrase("at school", "in der schule", "à l'école"),
    "market": Phrase("at the market", "auf dem markt", "au marché"),
    "before-house": Phrase("in front of the house", "vor dem haus", "devant la maison"),
    "before-school": Phrase("in front of the school", "vor der schule", "devant l'école"),
    "behind-house": Phrase("behind the house", "hinter dem haus", "derrière la maison"),
    "behind-school": Phrase("behind the school", "hinter der schule", "derrière l'école"),
    "under-tree": Phrase("under the tree", "unter dem baum", "sous l'arbre"),
    "on-table": Phrase("on the table", "auf dem tisch", "sur la table"),
    "under-table": Phrase("under the table", "unter dem tisch", "sous la table"),
    "on-bed": Phrase("on the bed", "auf dem bett", "sur le lit"),
    "under-bed": Phrase("under the bed", "unter dem bett", "sous le lit"),
}

TIMES: tuple[Phrase, ...] = (
    Phrase("today", "heute", "aujourd'hui"),
    Phrase("now", "jetzt", "maintenant"),
    Phrase("this morning", "heute morgen", "ce matin"),
    Phrase("this evening", "heute abend", "ce soir"),
)
