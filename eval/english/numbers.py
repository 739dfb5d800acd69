"""Spelled English numbers to digits: cardinals, ordinals, years, decimals, currencies."""

from collections.abc import Sequence

_TO_NINETEEN = """
zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen
sixteen seventeen eighteen nineteen
"""
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_SCALES = """
thousand million billion trillion quadrillion quintillion sextillion septillion octillion nonillion
decillion
"""
_ONES = _TO_NINETEEN.split()
_IRREGULAR = {"first": 1, "second": 2, "third": 3, "fifth": 5, "eighth": 8, "ninth": 9}
_IRREGULAR |= {"twelfth": 12}

SMALL = {name: value for value, name in enumerate(_ONES)}
SMALL |= {name: 10 * value for value, name in enumerate(_TENS.split(), start=2)}
ZEROS = {"o", "oh", "zero"}
SCALE = {name: 1000**power for power, name in enumerate(_SCALES.split(), start=1)}
CURRENCIES = {"dollar": "$", "euro": "€", "pound": "£", "cent": "¢"}
CURRENCIES |= {f"{name}s": sign for name, sign in CURRENCIES.items()}
SIGNS = {"minus": "-", "negative": "-", "plus": "+", "positive": "+"}


def _endings() -> dict[str, tuple[str, str]]:
    """Return plurals and ordinals: word → (its cardinal, what follows the digits)."""
    cardinals = {**SMALL, "hundred": 100, **SCALE}
    found = {}
    for name, value in cardinals.items():
        stem = name[:-1] + "ie" if name.endswith("y") else name
        plural = f"{stem}s" if not name.endswith("x") else f"{name}es"
        found[plural] = (name, "s")
        if value not in _IRREGULAR.values():
            found[f"{stem}th"] = (name, "th")
    for ordinal, value in _IRREGULAR.items():
        found[ordinal] = (_ONES[value], {1: "st", 2: "nd", 3: "rd"}.get(value, "th"))
    return found


ENDINGS = _endings()
NUMBERS = {*SMALL, *SCALE, "hundred"}


class _Reader:
    """Reads numbers off a list of words, from ``place`` on."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = words
        self.place = 0

    def word(self, ahead: int = 0) -> str:
        at = self.place + ahead
        return self.words[at] if at < len(self.words) else ""

    def number(self) -> str | None:
        """Read a number with its sign, unit and ending; None, and nothing read, without one."""
        start, sign, currency = self.place, "", ""
        if self.word() in SIGNS and self._begins(self.word(1)):
            sign = SIGNS[self.word()]
            self.place += 1
        elif self.word()[:1] in ("+", "-") and len(self.word()) > 1:
            sign = self.word()[0]
        digits, ending = self._value(self.word().lstrip("+-"))
        if digits is None:
            self.place = start
            return None
        if digits[:1] in "$€£¢":
            currency, digits = digits[0], digits[1:]
        if not ending and self.word() in CURRENCIES and not currency:
            currency = CURRENCIES[self.word()]
            self.place += 1
        elif not ending and self.word() in ("percent", "%"):
            ending = "%"
            self.place += 1
        elif not ending and (self.word(), self.word(1)) == ("per", "cent"):
            ending = "%"
            self.place += 2
        found = f"{sign}{currency}{digits}{ending}"
        return {"1": "one", "1s": "ones"}.get(found, found)

    def _begins(self, word: str) -> bool:
        return word in NUMBERS or word in ENDINGS or _is_number(word)

    def _value(self, first: str) -> tuple[str | None, str]:
        """Read digits and what follows them (ordinal, plural)."""
        currency = first[:1] if first[:1] in ("$", "€", "£", "¢") else ""
        amount = first[len(currency) :]
        if _is_number(amount):
            self.place += 1
            return currency + self._scaled(amount), ""
        if first == "point" and self._is_digit(self.word(1)):
            return self._decimals(""), ""
        digits, ending = self._whole()
        if digits is None or ending:
            return digits, ending
        return self._scaled(self._decimals(digits)), ""

    def _scaled(self, amount: str) -> str:
        """Return digits times the scales that follow: 2.5 million."""
        if self.word() not in {*SCALE, "hundred"}:
            return amount
        whole, _, part = amount.partition(".")
        value, places = int(whole or "0") * 10 ** len(part) + int(part or "0"), len(part)
        while self.word() in SCALE or self.word() == "hundred":
            value *= SCALE.get(self.word(), 100)
            self.place += 1
        whole_value, rest = divmod(value, 10**places)
        decimals = f"{rest:0{places}}".rstrip("0") if rest else ""
        return f"{whole_value}.{decimals}" if decimals else str(whole_value)

    def _decimals(self, digits: str) -> str:
        if self.word() == "point" and self._is_digit(self.word(1)):
            self.place += 1
            return f"{digits}.{self._run()[0]}"
        return digits

    def _is_digit(self, word: str) -> bool:
        return word in ZEROS or word in SMALL or word.isdecimal()

    def _whole(self) -> tuple[str | None, str]:
        """Read a cardinal, a year or single digits; with the ending of its last word."""
        total, limit, found, zeros = 0, 1000**12, False, ""
        while True:
            mark = self.place
            if found and self.word() == "and":
                self.place += 1
            digits, ending = self._hundreds(alone=not found)
            scale = SCALE.get(self.word()) if not ending else None
            last = ENDINGS.get(self.word(), ("", "")) if not ending else ("", "")
            if scale is None and last[0] in SCALE and (digits or not found):
                scale, ending = SCALE[last[0]], last[1]
            if digits is None and (scale is None or found):
                self.place = mark
                break
            value = int(digits or "1")
            if (scale or 1) >= limit or value * (scale or 1) >= limit:
                self.place = mark
                break
            if scale is None:
                if not found:
                    zeros = digits or ""
                total, found = total + value, True
                return (zeros or str(total)), ending
            self.place += 1
            total, limit, found = total + value * scale, scale, True
            if ending:
                return str(total), ending
        return (str(total) if found else None), ""

    def _hundreds(self, *, alone: bool) -> tuple[str | None, str]:
        """Read what stands before a scale: up to 99 hundreds, or digits in a row."""
        digits, ending = self._run() if alone else self._small()
        if ending:
            return digits, ending
        if self.word() in ("hundred", "hundreds", "hundredth") and len(digits or "1") <= 2:
            value, last = int(digits or "1") * 100, self.word()
            self.place += 1
            if last != "hundred":
                return str(value), ENDINGS[last][1]
            mark = self.place
            if self.word() == "and":
                self.place += 1
            rest, ending = self._small()
            if rest is None:
                self.place = mark
            return str(value + int(rest or "0")), ending
        return digits, ""

    def _run(self) -> tuple[str | None, str]:
        """Read numbers below a hundred one after another: a year, a telephone number."""
        run = ""
        while True:
            times = {"double": 2, "triple": 3}.get(self.word(), 0)
            word = self.word(1) if times else self.word()
            if times and (word in ZEROS or SMALL.get(word, 99) < 10):
                run += times * ("0" if word in ZEROS else str(SMALL[word]))
                self.place += 2
                continue
            if word in ZEROS and not times and (word == "zero" or run or self._digit_follows()):
                run += "0"
                self.place += 1
                continue
            digits, ending = self._small()
            if digits is None:
                return (run or None), ""
            run += digits
            if ending:
                return run, ending

    def _digit_follows(self) -> bool:
        return self.word(1) in SMALL or self.word(1) in ZEROS

    def _small(self) -> tuple[str | None, str]:
        """Read a number below a hundred."""
        word = self.word()
        name, ending = ENDINGS.get(word, (word, ""))
        if name not in SMALL:
            return None, ""
        value = SMALL[name]
        self.place += 1
        if value >= 20 and not ending:
            name, after = ENDINGS.get(self.word(), (self.word(), ""))
            if 0 < SMALL.get(name, 0) < 10:
                self.place += 1
                return str(value + SMALL[name]), after
        return str(value), ending


def _is_number(word: str) -> bool:
    whole, dot, part = word.partition(".")
    return (whole.isdecimal() and word.isascii() and (not dot or part.isdecimal())) or (
        not whole and bool(dot) and part.isdecimal() and word.isascii()
    )


def in_digits(words: Sequence[str]) -> list[str]:
    """Return ``words`` with every spelled number as digits; a lone one stays a word.

    >>> " ".join(in_digits("six point five million dollars and one cat".split()))
    '$6500000 and one cat'
    >>> " ".join(in_digits("the twenty first of may nineteen sixty nine".split()))
    'the 21st of may 1969'
    >>> " ".join(in_digits("one oh one and a hundred and five".split()))
    '101 and a 105'
    """
    reader = _Reader(_halves(words))
    found: list[str] = []
    while reader.place < len(reader.words):
        number = reader.number()
        if number is None:
            found.append(reader.word())
            reader.place += 1
        else:
            found.append(number)
    return _with_cents(found)


def _halves(words: Sequence[str]) -> list[str]:
    """Spell "and a half" after a number as "point five"."""
    found: list[str] = []
    for word in words:
        found.append(word)
        if found[-3:] == ["and", "a", "half"] and len(found) > 3:
            before = found[-4]
            if before in NUMBERS or _is_number(before):
                found[-3:] = ["point", "five"]
    return found


def _with_cents(words: Sequence[str]) -> list[str]:
    """Join whole units of a currency and cents: $2 and ¢50."""
    found: list[str] = []
    for word in words:
        cents = word[1:] if word[:1] == "¢" else ""
        if cents.isdecimal() and len(cents) <= 2:
            back = 2 if found[-1:] == ["and"] else 1
            unit = found[-back] if len(found) >= back else ""
            if unit.lstrip("+-")[:1] in ("$", "€", "£") and unit.lstrip("+-")[1:].isdecimal():
                found[-back:] = [f"{unit}.{cents:0>2}"]
                continue
        found.append(word)
    return found
