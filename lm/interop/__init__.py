"""Weights of other toolkits: Llama, Mistral, OPT, and starting from them."""
