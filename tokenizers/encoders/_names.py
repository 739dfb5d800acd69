"""The canonical names of an encoder's weights, and what others call the same.

fairseq, unilm, OpenAI and Hugging Face have names of their own; a name is first stripped of what
wraps the encoder, then looked up.
"""

import re

PREFIXES = (
    *("w2v_encoder.w2v_model.", "hubert.", "wavlm."),
    *("wav2vec2.", "unispeech.", "unispeech_sat."),
    "model.",
)
"""What wraps the encoder's names: fairseq's CTC models, and Hugging Face's task heads."""

_DROPPED = (  # parts of pre-training, of a task head or of a decoder; no feature depends on them
    r"mask_emb|masked_spec_embed",
    r"final_proj\..*|label_embs_concat|target_glu\..*",
    r"quantizer\..*|project_q\..*|project_hid\..*|dropout_features\..*",
    r"(w2v_encoder\.)?proj\..*|lm_head\..*",
    r"projector\..*|classifier\..*|layer_weights",
    r"speaker_proj\..*|label_embeddings_concat|layer_norm_for_extract\..*|ctc_proj\..*",
    r"encoder\.pos_conv_embed\.batch_norm\.num_batches_tracked",
    r"decoder\..*|proj_out\..*",
)

_CONV, _BLOCK = r"feature_extractor\.conv_layers\.(\d+)", r"encoder\.(?:layers|blocks)\.(\d+)"
_ATTN, _WB = r"(?:self_attn|attention|attn)", r"(weight|bias)"
_PARAM = r"encoder\.pos_conv_embed\.conv\.parametrizations\.weight\.original"
_QKV = r"(q|k|v|out)(?:uery|ey|alue)?(?:_proj)?"

_NAMES = (  # fairseq and unilm, OpenAI | Hugging Face                          -> canonical
    (rf"{_CONV}\.(?:0|conv)\.{_WB}",                                      r"conv.\1.\2"),
    (rf"{_CONV}\.(?:2|2\.1|layer_norm)\.{_WB}",                           r"conv.\1.norm.\2"),
    (rf"encoder\.conv1\.{_WB}",                                           r"conv.0.\1"),
    (rf"encoder\.conv2\.{_WB}",                                           r"conv.1.\1"),
    (r"encoder\.(?:positional_embedding|embed_positions\.weight)",        r"positions.weight"),
    (rf"(?:feature_projection\.)?layer_norm\.{_WB}",                      r"projection.norm.\1"),
    (rf"(?:post_extract_proj|feature_projection\.projection)\.{_WB}",     r"projection.\1"),
    (r"encoder\.(?:pos_conv\.0|pos_conv_embed\.conv)\.(bias|weight)",     r"position.\1"),
    (r"encoder\.(?:pos_conv\.0|pos_conv_embed\.conv)\.weight_([gv])",     r"position.\1"),
    (r"encoder\.pos_conv_embed\.batch_norm\.(weight|bias|running_mean|running_var)",
                                                                          r"position.input.\1"),
    (rf"{_PARAM}0",                                                       r"position.g"),
    (rf"{_PARAM}1",                                                       r"position.v"),
    (rf"encoder\.(?:layer_norm|ln_post)\.{_WB}",                          r"norm.\1"),
    (rf"{_BLOCK}\.{_ATTN}\.{_QKV}\.{_WB}",                                r"block.\1.\2.\3"),
    (rf"{_BLOCK}\.{_ATTN}\.(?:grep_linear|gru_rel_pos_linear)\.{_WB}",    r"block.\1.gate.\2"),
    (rf"{_BLOCK}\.{_ATTN}\.(?:grep_a|gru_rel_pos_const)",                 r"block.\1.gate.scale"),
    (rf"{_BLOCK}\.(?:self_attn_layer_norm|attn_ln|layer_norm)\.{_WB}",    r"block.\1.norm1.\2"),
    (rf"{_BLOCK}\.(?:fc1|mlp\.0|feed_forward\.intermediate_dense)\.{_WB}", r"block.\1.up.\2"),
    (rf"{_BLOCK}\.(?:fc2|mlp\.2|feed_forward\.output_dense)\.{_WB}",      r"block.\1.down.\2"),
    (rf"{_BLOCK}\.(?:final_layer_norm|mlp_ln)\.{_WB}",                    r"block.\1.norm2.\2"),
    (r"encoder\.layers\.0\.self_attn\.relative_attention_bias\.weight",   r"bias.weight"),
    (r"encoder\.layers\.0\.attention\.rel_attn_embed\.weight",            r"bias.weight"),
)  # fmt: skip


def rename(name: str) -> str | None:
    """Return the canonical name; empty if the weight is to be dropped, ``None`` if unknown."""
    bare = name
    for prefix in PREFIXES:
        bare = bare.removeprefix(prefix)
    if any(re.fullmatch(pattern, bare) for pattern in _DROPPED):
        return ""
    for pattern, replacement in _NAMES:
        match = re.fullmatch(pattern, bare)
        if match:
            return match.expand(replacement)
    return None
