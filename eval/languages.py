"""Codes of languages: ISO 639-3 and 639-2, and what stands after a hyphen, to ISO 639-1."""

_THREE_LETTERS = """
aa aar ab abk ae ave af afr ak aka am amh an arg ar ara as asm av ava ay aym az aze ba bak be bel
bg bul bh bih bi bis bm bam bn ben bo bod br bre bs bos ca cat ce che ch cha co cos cr cre cs ces
cu chu cv chv cy cym da dan de deu dv div dz dzo ee ewe el ell en eng eo epo es spa et est eu eus
fa fas ff ful fi fin fj fij fo fao fr fra fy fry ga gle gd gla gl glg gn grn gu guj gv glv ha hau
he heb hi hin ho hmo hr hrv ht hat hu hun hy hye hz her ia ina id ind ie ile ig ibo ii iii ik ipk
io ido is isl it ita iu iku ja jpn jv jav ka kat kg kon ki kik kj kua kk kaz kl kal km khm kn kan
ko kor kr kau ks kas ku kur kv kom kw cor ky kir la lat lb ltz lg lug li lim ln lin lo lao lt lit
lu lub lv lav mg mlg mh mah mi mri mk mkd ml mal mn mon mr mar ms msa mt mlt my mya na nau nb nob
nd nde ne nep ng ndo nl nld nn nno no nor nr nbl nv nav ny nya oc oci oj oji om orm or ori os oss
pa pan pi pli pl pol ps pus pt por qu que rm roh rn run ro ron ru rus rw kin sa san sc srd sd snd
se sme sg sag si sin sk slk sl slv sm smo sn sna so som sq sqi sr srp ss ssw st sot su sun sv swe
sw swa ta tam te tel tg tgk th tha ti tir tk tuk tl tgl tn tsn to ton tr tur ts tso tt tat tw twi
ty tah ug uig uk ukr ur urd uz uzb ve ven vi vie vo vol wa wln wo wol xh xho yi yid yo yor za zha
zh zho zu zul
"""
_OTHERS = """
bo tib cs cze cy wel de ger el gre eu baq fa per fr fre hy arm is ice ka geo mi mao mk mac ms may
my bur nl dut ro rum sk slo sq alb zh chi
zh cmn ar arb fa pes sw swh ms zsm et ekk lv lvs mn khk ne npi or ory uz uzn az azj sq als mg plt
yi ydd qu quy om gaz ku kmr ps pbt tl fil gn gug ay ayr ff fuv
he iw id in yi ji ro mo jv jw
"""
"""Bibliographic codes, the main language of a macrolanguage, codes that were withdrawn."""


def _table(*texts: str) -> dict[str, str]:
    words = " ".join(texts).split()
    return dict(zip(words[1::2], words[::2], strict=True))


_SHORT = _table(_THREE_LETTERS, _OTHERS)


def iso_639_1(code: str) -> str:
    """Return the two-letter code of a language, or what it has where there is none.

    Whatever the code was: of two or three letters, with or without a script and a region.

    >>> [iso_639_1(code) for code in ("cmn", "zh-CN", "zho_Hans", "DEU", "yue")]
    ['zh', 'zh', 'zh', 'de', 'yue']
    """
    base = code.strip().lower().replace("_", "-").split("-")[0]
    return _SHORT.get(base, base)
