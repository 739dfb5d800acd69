"""British spellings to American ones, by rule; one that goes too far does so in both texts."""

import re
from collections.abc import Iterable
from functools import lru_cache

_OUR = (
    "arb ard arm behavi cand clam col demean endeav enam fav ferv flav harb hon hum lab misdemean "
    "neighb od parl ranc rig rum sav savi splend succ tum val vap vig"
)
_EXACT_OUR = "|".join(_OUR.split())
_IS_STAYS = (
    "adv advert appra chast circumc compr comprom conc counterpo cru dem den desp dev disenfranch "
    "disgu enterpr exc exerc expert franch impr improv inc lia lou mala mayonna merchand parad "
    "porpo pra prec prem prom reappra repr rev superv surm surpr telev torto treat turquo unsuperv "
    "upr"
)
"""Before -ise, -ised, …; words in -wise too."""
_DOUBLED = (
    "apparel barrel bevel cancel carol channel chisel counsel devil dial dishevel duel enamel "
    "equal fuel funnel gambol gravel grovel initial jewel kennel label laurel level libel marshal "
    "marvel medal metal model panel parcel pedal pencil pummel quarrel ravel revel rival shovel "
    "signal snivel spiral squirrel stencil swivel tassel tinsel total towel travel tunnel weasel "
    "yodel"
)
_RE = "calib cent fib lust meag mit och reconnoit sab scept sepulch somb spect theat tit"
_RULES: tuple[tuple[str, str], ...] = (
    (rf"^(dis|un|be|mis|re)?({_EXACT_OUR})our(?=$|s$|[aefhilmnwy])", r"\1\2or"),
    (rf"^(un|re|mis|out)?({'|'.join(_DOUBLED.split())})l(?=ed$|ing|er|ery$|ous|ist)", r"\1\2"),
    (rf"^((?:\w*(?:met|lit))|(?:{'|'.join(_RE.split())}))re(?=$|s$|d$)", r"\1er"),
    (r"^cent(red|ring)$", r"cente\1"),
    (r"^(analy|paraly|cataly|breathaly|hydroly|electroly)s(?=e|ing)", r"\1z"),
    (r"^(catal|dial|anal|monol|homol|travel)ogue(?=$|s$)", r"\1og"),
    (r"^(def|off|lic|pret)ence(?=$|s$|less)", r"\1ense"),
    (r"^(fulfil|enrol|distil|instil|appal|enthral)(?=$|s$|ment)", r"\1l"),
    (r"^(skil|wil)ful", r"\1lful"),
    (r"^(an|h|leuk|tox|septic)aem", r"\1em"),
    (r"^anaesth", "anesth"),
    (r"^(p|orthop|encyclop|gyn|arch|pal|f|medi|c|prim)ae(?=d|c|o|v|sar)", r"\1e"),
    (r"^(f|am|hom)oe(?=t|b|o)", r"\1e"),
    (r"^oe(?=str|soph|dem)", "e"),
    (r"^diarrhoea", "diarrhea"),
    (r"^manoeuvr(?:e(?=$|s$))?", r"maneuver"),
    (r"^aeroplane", "airplane"),
    (r"^(m|sm)ould(?=$|s|ed|er|ing|y)", r"\1old"),
    (r"^(m)oult", r"\1olt"),
    (r"^grey", "gray"),
    (r"^plough", "plow"),
    (r"^sceptic", "skeptic"),
    (r"^sulph", "sulf"),
    (r"^practis(?=e|ing)", "practic"),
    (r"^enquir", "inquir"),
)
_PAIRS = """
aluminium aluminum artefact artifact axe ax cheque check chequebook checkbook cosy cozy
draught draft draughty drafty gaol jail jewellery jewelry kerb curb mum mom
moustache mustache programme program pyjamas pajamas storey story tyre tire yoghurt yogurt
omelette omelet instalment installment ageing aging judgement judgment woollen woolen
acknowledgement acknowledgment marvellous marvelous tranquillity tranquility speciality specialty
chilli chili tonne ton
learnt learned burnt burned spelt spelled spoilt spoiled dreamt dreamed leapt leaped
"""
_WORDS = dict(zip(_PAIRS.split()[::2], _PAIRS.split()[1::2], strict=True))
_COMPILED = tuple((re.compile(pattern), new) for pattern, new in _RULES)
_KEPT = {*_IS_STAYS.split()}
_IS = re.compile(r"^(\w{3,})is(e[ds]?|ers?|ing|ations?)$")


def american(words: Iterable[str]) -> list[str]:
    """Return ``words`` as they are spelled in the United States.

    >>> american("the colours of a travelling theatre were organised".split())
    ['the', 'colors', 'of', 'a', 'traveling', 'theater', 'were', 'organized']
    """
    return [_american(word) for word in words]


@lru_cache(maxsize=1 << 16)  # a language has few words, and each meets two dozen rules
def _american(word: str) -> str:
    stem = word.removesuffix("s")
    if stem in _WORDS:
        return _WORDS[stem] + word[len(stem) :]
    if word in _WORDS:
        return _WORDS[word]
    for pattern, new in _COMPILED:
        changed = pattern.sub(new, word)
        if changed != word:
            return changed
    found = _IS.match(word)
    if found and found[1] not in _KEPT and not found[1].endswith("w"):
        return f"{found[1]}iz{found[2]}"
    return word
