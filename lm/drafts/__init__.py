"""A T2V2 and a decoder-only model over one tokenizer, on the same utterances."""
