"""Speech tokenizers: SSL features, k-means units, subwords. Import as ``unitone.tokenizers``."""

if __name__ == "tokenizers":  # found from a checkout, hiding Hugging Face's package of that name
    from unitone._checkout import give_back

    give_back(__name__, __file__)
