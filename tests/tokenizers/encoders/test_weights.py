"""Checkpoints in every published form: reading, refusing, hashing; no file is executed."""

import argparse
import json
import os
import re
import sys
import types
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from unitone import safe_pickle
from unitone.errors import CheckpointError, ConfigError
from unitone.tokenizers import build, encode
from unitone.tokenizers.encoder import load_encoder
from unitone.tokenizers.encoders import _weights
from unitone.tokenizers.encoders._encoder import SpeechEncoder
from unitone.tokenizers.shards import TokenShards

CPU = torch.device("cpu")
DIM, FFN, HEADS, CHANNELS = 32, 48, 2, 16
Weights = dict[str, Tensor]


def fairseq(
    *, wavlm: bool = False, layer_norm: bool = False, num_layers: int = 2, seed: int = 0
) -> Weights:
    """Return a tiny state dictionary under fairseq's and unilm's names."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator) / 4

    weights: Weights = {"mask_emb": draw(DIM), "label_embs_concat": draw(7, 5)}

    def linear(name: str, dim_in: int, dim_out: int) -> None:
        weights[f"{name}.weight"], weights[f"{name}.bias"] = draw(dim_out, dim_in), draw(dim_out)

    def norm(name: str, dim: int) -> None:
        weights[f"{name}.weight"], weights[f"{name}.bias"] = 1 + draw(dim), draw(dim)

    linear("final_proj", DIM, 5)
    for i, kernel in enumerate((10, 3, 3, 3, 3, 2, 2)):
        conv = f"feature_extractor.conv_layers.{i}"
        weights[f"{conv}.0.weight"] = draw(CHANNELS, CHANNELS if i else 1, kernel)
        if layer_norm:
            norm(f"{conv}.2.1", CHANNELS)
        elif i == 0:
            norm(f"{conv}.2", CHANNELS)
    norm("layer_norm", CHANNELS)
    linear("post_extract_proj", CHANNELS, DIM)
    weights["encoder.pos_conv.0.bias"] = draw(DIM)
    weights["encoder.pos_conv.0.weight_g"] = 1 + draw(1, 1, 16)
    weights["encoder.pos_conv.0.weight_v"] = draw(DIM, DIM // 4, 16)
    norm("encoder.layer_norm", DIM)
    for i in range(num_layers):
        block = f"encoder.layers.{i}"
        for part in ("q", "k", "v", "out"):
            linear(f"{block}.self_attn.{part}_proj", DIM, DIM)
        norm(f"{block}.self_attn_layer_norm", DIM)
        norm(f"{block}.final_layer_norm", DIM)
        linear(f"{block}.fc1", DIM, FFN)
        linear(f"{block}.fc2", FFN, DIM)
        if wavlm:
            linear(f"{block}.self_attn.grep_linear", DIM // HEADS, 8)
            weights[f"{block}.self_attn.grep_a"] = 1 + draw(1, HEADS, 1, 1)
    if wavlm:
        weights["encoder.layers.0.self_attn.relative_attention_bias.weight"] = draw(32, HEADS)
    return weights


HUGGING_FACE = (
    (r"conv_layers\.(\d)\.0\.", r"conv_layers.\1.conv."),
    (r"conv_layers\.(\d)\.2\.(1\.)?", r"conv_layers.\1.layer_norm."),
    (r"^layer_norm\.", "feature_projection.layer_norm."),
    (r"^post_extract_proj", "feature_projection.projection"),
    (r"pos_conv\.0\.weight_g", "pos_conv_embed.conv.parametrizations.weight.original0"),
    (r"pos_conv\.0\.weight_v", "pos_conv_embed.conv.parametrizations.weight.original1"),
    (r"pos_conv\.0\.bias", "pos_conv_embed.conv.bias"),
    (r"self_attn_layer_norm", "layer_norm"),
    (r"self_attn\.relative_attention_bias", "attention.rel_attn_embed"),
    (r"self_attn\.grep_linear", "attention.gru_rel_pos_linear"),
    (r"self_attn\.grep_a", "attention.gru_rel_pos_const"),
    (r"self_attn\.", "attention."),
    (r"fc1", "feed_forward.intermediate_dense"),
    (r"fc2", "feed_forward.output_dense"),
    (r"^mask_emb$", "masked_spec_embed"),
)


def renamed(weights: Weights, *, old_weight_norm: bool = False, prefix: str = "") -> Weights:
    answer = {}
    for name, weight in weights.items():
        if not name.startswith(("final_proj", "label_embs")):
            for pattern, replacement in HUGGING_FACE:
                name = re.sub(pattern, replacement, name)
            if old_weight_norm:
                name = name.replace("parametrizations.weight.original0", "weight_g")
                name = name.replace("parametrizations.weight.original1", "weight_v")
            answer[prefix + name] = weight
    return answer


def hugging_face(folder: Path, weights: Weights, **config: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: weight.contiguous() for name, weight in weights.items()},
              folder / "model.safetensors")  # fmt: skip
    fields = {"num_attention_heads": HEADS, "max_bucket_distance": 40} | config
    (folder / "config.json").write_text(json.dumps(fields), encoding="utf-8")
    return folder


def fairseq_file(path: Path, weights: Weights, **changes: object) -> Path:
    cfg: dict[str, object] = {"encoder_attention_heads": HEADS, "max_distance": 40} | changes
    torch.save({"model": weights, "cfg": {"model": cfg, "task": cfg}}, path)
    return path


def load(path: Path | str) -> SpeechEncoder:
    encoder = load_encoder(path, layer=None, precision="fp32", device=CPU)
    assert isinstance(encoder, SpeechEncoder)
    return encoder


def features(encoder: SpeechEncoder) -> Tensor:
    waveform = torch.randn(1, 6000, generator=torch.Generator().manual_seed(0))
    return encoder.features(waveform, torch.tensor([6000]), layer=encoder.num_layers)


@pytest.mark.parametrize("wavlm", [False, True], ids=["hubert", "wavlm"])
@pytest.mark.parametrize("layer_norm", [False, True], ids=["group", "layer"])
def test_every_form_gives_the_same_bits(tmp_path: Path, wavlm: bool, layer_norm: bool) -> None:
    weights = fairseq(wavlm=wavlm, layer_norm=layer_norm)
    first = load(fairseq_file(tmp_path / "model.pt", weights))
    assert first.normalize == layer_norm
    family = "wavlm" if wavlm else "hubert"
    assert first.name.startswith(family)

    forms = [hugging_face(tmp_path / "new", renamed(weights))]
    old = renamed(weights, old_weight_norm=True, prefix=f"{family}.")
    forms.append(hugging_face(tmp_path / "old", old | {"lm_head.weight": torch.ones(3, DIM)}))
    pickled = hugging_face(tmp_path / "bin", renamed(weights))
    (pickled / "model.safetensors").unlink()
    torch.save(OrderedDict(renamed(weights)), pickled / "pytorch_model.bin")
    forms.append(pickled)
    forms.append(shard(hugging_face(tmp_path / "sharded", renamed(weights))))
    ctc = {f"w2v_encoder.w2v_model.{name}": weight for name, weight in weights.items()}
    ctc |= {"w2v_encoder.proj.weight": torch.ones(3, DIM), "w2v_encoder.proj.bias": torch.ones(3)}
    forms.append(fairseq_file(tmp_path / "ctc.pt", ctc))
    s3prl = {"model_weight": weights, "model_cfg": {"encoder_attention_heads": HEADS},
             "task_cfg": {"normalize": layer_norm, "max_distance": 40}}  # fmt: skip
    if not wavlm:
        torch.save(s3prl, tmp_path / "s3prl.pt")
        forms.append(tmp_path / "s3prl.pt")
    for form in forms:
        other = load(form)
        assert other.weight_hash == first.weight_hash, form
        assert torch.equal(features(other), features(first)), form


def shard(folder: Path) -> Path:
    from safetensors.torch import load_file

    whole = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(whole)
    index: dict[str, str] = {}
    for part, chosen in enumerate((names[::2], names[1::2])):
        save_file({name: whole[name] for name in chosen}, folder / f"part-{part}.safetensors")
        index |= dict.fromkeys(chosen, f"part-{part}.safetensors")
    text = json.dumps({"weight_map": index})
    (folder / "model.safetensors.index.json").write_text(text, encoding="utf-8")
    return folder


def test_the_older_flat_stream_is_read_too(tmp_path: Path) -> None:
    weights = fairseq()
    args = argparse.Namespace(encoder_attention_heads=HEADS, normalize=True)
    torch.save({"model": weights, "args": args}, tmp_path / "old.pt",
               _use_new_zipfile_serialization=False)  # fmt: skip
    old = load(tmp_path / "old.pt")
    assert old.normalize  # from args; the front end alone would say no
    assert old.weight_hash == load(fairseq_file(tmp_path / "new.pt", weights)).weight_hash


def test_half_precision_weights_are_widened(tmp_path: Path) -> None:
    half = {name: weight.half() for name, weight in fairseq().items()}
    encoder = load(fairseq_file(tmp_path / "half.pt", half))
    full = {name: weight.float() for name, weight in half.items()}
    assert encoder.weight_hash == load(fairseq_file(tmp_path / "full.pt", full)).weight_hash


def test_one_changed_weight_changes_the_hash(tmp_path: Path) -> None:
    weights = fairseq()
    before = load(fairseq_file(tmp_path / "a.pt", weights)).weight_hash
    weights["encoder.layers.1.fc2.bias"][3] += 1e-3
    assert load(fairseq_file(tmp_path / "b.pt", weights)).weight_hash != before


def test_the_checkpoint_s_own_configuration_wins(tmp_path: Path) -> None:
    weights = fairseq(layer_norm=True)
    path = fairseq_file(tmp_path / "m.pt", weights, layer_norm_first=False, normalize=False)
    encoder = load(path)
    assert not encoder.normalize
    assert not encoder._transformer.pre_norm
    assert load(hugging_face(tmp_path / "hf", renamed(weights)))._transformer.pre_norm


def test_weight_norm_is_over_all_but_the_last_dimension() -> None:
    direction = torch.randn(6, 3, 4, generator=torch.Generator().manual_seed(0))
    folded = _weights.fold_weight_norm(torch.full((1, 1, 4), 2.0), direction)
    torch.testing.assert_close(folded.flatten(0, 1).norm(dim=0), torch.full((4,), 2.0))


class Payload:
    """Runs a shell command when a trusting unpickler meets it."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_malicious_pickle_does_not_run(tmp_path: Path, zipped: bool) -> None:
    target = tmp_path / "executed"
    top = {"model": fairseq(), "cfg": {"encoder_attention_heads": HEADS}, "x": Payload(target)}
    torch.save(top, tmp_path / "evil.pt", _use_new_zipfile_serialization=zipped)
    assert load(tmp_path / "evil.pt").num_layers == 2
    torch.save(Payload(target), tmp_path / "bare.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match="no fairseq, unilm or s3prl checkpoint"):
        load(tmp_path / "bare.pt")
    assert not target.exists()


def test_classes_of_absent_packages_become_stubs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = types.ModuleType("absent_package")
    kind = type("Config", (), {"__module__": "absent_package"})
    module.Config = kind  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "absent_package", module)
    node, config = kind(), kind()
    vars(node)["_val"] = 12
    vars(config)["_content"] = {"heads": node, "name": "x"}
    torch.save({"cfg": config, "weight": torch.nn.Parameter(torch.ones(2))}, tmp_path / "m.pt")
    monkeypatch.delitem(sys.modules, "absent_package")

    value = safe_pickle.load_torch(tmp_path / "m.pt")
    assert isinstance(value["cfg"], safe_pickle.Stub)
    assert safe_pickle.plain(value["cfg"]) == {"heads": 12, "name": "x"}
    assert torch.equal(value["weight"], torch.ones(2))


def test_views_and_shared_storages_are_restored(tmp_path: Path) -> None:
    base = torch.arange(12, dtype=torch.bfloat16).view(3, 4)
    saved = {"a": base.T, "b": base[1:, ::2], "empty": torch.empty(0, 3), "n": torch.tensor(5)}
    for zipped in (True, False):
        torch.save(saved, tmp_path / "v.pt", _use_new_zipfile_serialization=zipped)
        value = safe_pickle.load_torch(tmp_path / "v.pt")
        for name, tensor in saved.items():
            assert torch.equal(value[name], tensor)
            assert value[name].dtype == tensor.dtype


@pytest.mark.parametrize("content", [b"", b"not a pickle", b"\x80\x02}q\x00."])
def test_damaged_files_are_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"bad\.pt"):
        load(tmp_path / "bad.pt")


def test_truncated_and_foreign_archives_are_named(tmp_path: Path) -> None:
    path = fairseq_file(tmp_path / "m.pt", fairseq())
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(CheckpointError, match=r"m\.pt"):
        load(path)
    with zipfile.ZipFile(tmp_path / "other.pt", "w") as archive:
        archive.writestr("x/readme", "no model")
    with pytest.raises(CheckpointError, match="no checkpoint"):
        load(tmp_path / "other.pt")


def test_missing_left_over_and_misshapen_weights_are_listed(tmp_path: Path) -> None:
    weights = fairseq(wavlm=True)
    del weights["encoder.layers.1.fc1.bias"]
    weights["encoder.layer_norm.weight"] = torch.ones(DIM + 1)
    weights["encoder.layers.0.self_attn_layer_norm.bias"] = torch.ones(3)
    with pytest.raises(
        CheckpointError,
        match=r"missing: block\.1\.up\.bias; of the wrong shape: block\.0\.norm1\.bias, norm\.w",
    ):
        load(fairseq_file(tmp_path / "missing.pt", weights))
    weights = fairseq()
    weights["encoder.layers.1.self_attn.grep_a"] = torch.ones(1, HEADS, 1, 1)
    with pytest.raises(CheckpointError, match=r"left over: block\.1\.gate\.scale"):
        load(fairseq_file(tmp_path / "extra.pt", weights))
    weights = fairseq() | {"encoder.adapter.weight": torch.ones(1)}
    with pytest.raises(CheckpointError, match=r"no known part: encoder\.adapter\.weight"):
        load(fairseq_file(tmp_path / "unknown.pt", weights))
    with pytest.raises(CheckpointError, match="has not all weights of a HuBERT or WavLM"):
        load(fairseq_file(tmp_path / "part.pt", {"post_extract_proj.bias": torch.ones(3)}))


def test_all_weights_are_checked_even_if_few_blocks_are_built(tmp_path: Path) -> None:
    weights = fairseq()
    del weights["encoder.layers.1.fc1.bias"]
    with pytest.raises(CheckpointError, match=r"block\.1\.up\.bias"):
        load_encoder(
            fairseq_file(tmp_path / "m.pt", weights), layer=1, precision="fp32", device=CPU
        )


def test_unsupported_variants_are_refused(tmp_path: Path) -> None:
    weights = renamed(fairseq())
    norm = {"encoder.pos_conv_embed.batch_norm.weight": torch.ones(DIM)}
    with pytest.raises(CheckpointError, match="running_var"):
        load(hugging_face(tmp_path / "bn", weights | norm, conv_pos_batch_norm=True))
    with pytest.raises(CheckpointError, match="data2vec-audio is not supported"):
        load(hugging_face(tmp_path / "d2v", weights, model_type="data2vec-audio"))
    with pytest.raises(CheckpointError, match="hidden_act = 'relu'"):
        load(hugging_face(tmp_path / "relu", weights, hidden_act="relu"))


@pytest.mark.parametrize("family", ["wav2vec2", "unispeech-sat", "unispeech"])
def test_models_built_like_hubert_are_not_called_so(tmp_path: Path, family: str) -> None:
    weights = renamed(fairseq(), prefix=family.replace("-", "_") + ".")
    assert load(hugging_face(tmp_path / "a", weights, model_type=family)).name == f"{family}-2x32"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", "{"),
        ("config.json", "[]"),
        ("config.json", "null"),
        ("config.json", '{"num_attention_heads": "2"}'),
        ("config.json", '{"num_attention_heads": 0}'),
        ("config.json", '{"conv_stride": "5"}'),
        ("config.json", '{"conv_stride": [5, null]}'),
        ("config.json", '{"layer_norm_eps": "x"}'),
        ("config.json", '{"do_stable_layer_norm": []}'),
        ("model.safetensors.index.json", "{"),
        ("model.safetensors.index.json", "[]"),
        ("model.safetensors.index.json", "{}"),
        ("model.safetensors.index.json", '{"weight_map": []}'),
        ("model.safetensors.index.json", '{"weight_map": {"a": 1}}'),
        ("model.safetensors.index.json", '{"weight_map": {"a": "absent"}}'),
    ],
)
def test_a_damaged_configuration_or_index_is_named(tmp_path: Path, name: str, content: str) -> None:
    folder = hugging_face(tmp_path / "m", renamed(fairseq()))
    if name.endswith(".index.json"):
        (folder / "model.safetensors").rename(folder / "model-1.safetensors")
    (folder / name).write_text(content)
    with pytest.raises(CheckpointError, match=str(folder)):
        load(folder)


@pytest.mark.parametrize("value", ["x", "2", [], {}, 1.5, -1])
@pytest.mark.parametrize("name", ["encoder_attention_heads", "max_distance"])
def test_a_field_of_another_type_in_a_fairseq_configuration_is_named(
    tmp_path: Path, name: str, value: object
) -> None:
    path = fairseq_file(tmp_path / "m.pt", fairseq(wavlm=True), **{name: value})
    with pytest.raises(CheckpointError, match=rf"{path}: its configuration says"):
        load(path)


@pytest.mark.parametrize("front_end", [{}, {"do_stable_layer_norm": True}], ids=["post", "pre"])
@pytest.mark.parametrize("more", [{}, {"layer_norm_eps": 0.1}, {"conv_pos_batch_norm": True}])
def test_what_a_configuration_says_is_done_as_in_transformers(
    tmp_path: Path, front_end: dict[str, object], more: dict[str, object]
) -> None:
    transformers = pytest.importorskip("transformers")
    sizes: dict[str, object] = {
        "hidden_size": DIM,
        "num_hidden_layers": 2,
        "num_attention_heads": HEADS,
    }
    sizes |= {"intermediate_size": FFN, "conv_dim": [CHANNELS] * 7}
    sizes |= {"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4}
    front_end = front_end and front_end | {"feat_extract_norm": "layer"}
    generator = torch.Generator().manual_seed(0)
    model = transformers.HubertModel(transformers.HubertConfig(**sizes, **front_end, **more)).eval()
    for tensor in model.state_dict().values():  # no norm or statistic as it begins
        if tensor.is_floating_point():
            tensor.add_(0.2 * torch.rand(tensor.shape, generator=generator))
    model.save_pretrained(tmp_path)
    waveform = torch.randn(1, 6000, generator=generator)
    with torch.no_grad():
        expected = model(waveform).last_hidden_state
    encoder = load(tmp_path)
    found = encoder.features(waveform, torch.tensor([6000]), layer=2, final_norm=bool(front_end))
    assert torch.allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("layer", [-1, 3, 42])
def test_layers_out_of_range_are_refused(tmp_path: Path, layer: int) -> None:
    path = fairseq_file(tmp_path / "m.pt", fairseq())
    with pytest.raises(ConfigError, match=rf"layer must be 1..2 for hubert-2x32, got {layer}"):
        load_encoder(path, layer=layer, precision="fp32", device=CPU)


def test_a_build_with_a_relative_path_encodes_from_another_folder(
    tmp_path: Path, tiny_corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hugging_face(tmp_path / "models" / "tiny", renamed(fairseq()))
    manifest = ["--manifest", str(tiny_corpus / "manifest.jsonl")]
    monkeypatch.chdir(tmp_path)
    words = ["--ssl", "models/tiny", "--layer", "1", "--k", "8", "--unit-subwords", "0"]
    assert build.main([*manifest, *words, "--out", "t", "--device", "cpu"]) == 0
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    words = ["--tokenizer", str(tmp_path / "t"), "--device", "cpu", "--out", "tokens"]
    assert encode.main([*manifest, *words]) == 0
    assert len(TokenShards(elsewhere / "tokens")) == 6
