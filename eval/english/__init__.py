"""English texts as Whisper's authors compare them: contractions, numbers, spellings."""
