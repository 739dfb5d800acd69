"""All golden cases, by the names of their files."""

from tests.golden import lm_cases, speech_cases, tokenizer_cases
from tests.golden.case import Case

CASES: dict[str, Case] = tokenizer_cases.CASES | lm_cases.CASES | speech_cases.CASES
