"""Options are declared once: a line in the struct and a line in its visitor (docs/adding.md).

What reads or writes them is derived, so the visitors are compared with the structs on their text,
and the explicit signatures and types of Python with the visitors.
"""

import inspect
import re
from pathlib import Path

import pytest
from mnemosyne.nn.models import AttentionChoice

from mnemosyne import nn

ROOT = Path(__file__).parents[2]
LIBRARY = ROOT / "mnemosyne"
# By the layer: sources without comments.
TEXTS = [
    (path.relative_to(LIBRARY).parts[0], re.sub(r"//.*", "", path.read_text()))
    for path in sorted(LIBRARY.rglob("*"))
    if path.suffix in {".h", ".cpp"}
]

# Members that no visitor names, and why.
LEFT_OUT = {
    "LinearAttentionOptions": {"position"},  # of several kinds: Python says which beside it
    "SoftmaxAttentionOptions": {"position"},
    "CausalLMOptions": {"attention"},  # a dictionary of its own
    "ViTOptions": {"attention"},
    "PointEncoderOptions": {"attention"},
    "HierarchicalEncoderOptions": {"attention"},
    "BucketBiasOptions": {"num_heads", "causal"},  # those of the attention
}


def visitors() -> dict[tuple[str, str], str]:
    """By the layer and the name of the struct: what its `bind` and `bind_choice` say."""
    found: dict[tuple[str, str], str] = {}
    pattern = r"\bbind(?:_choice)?\(Fields& visit, (\w+)& \w+\) \{(.*?)\}\n"
    for layer, text in TEXTS:
        for struct, body in re.findall(pattern, text, re.DOTALL):
            found[layer, struct] = found.get((layer, struct), "") + body
    return found


def members(layer: str, struct: str) -> list[str]:
    pattern = rf"struct {struct} \{{(.*?)\n\}};"
    bodies = [m for there, t in TEXTS if there == layer for m in re.findall(pattern, t, re.DOTALL)]
    assert len(bodies) == 1, f"{struct} is declared {len(bodies)} times"
    # Declarations such as "std::string name = ..." or "double x{}", not functions.
    declaration = r"\s*(?!\s|static|return|void)[\w:<>, *\n]+?[\s>](?!operator\b)(\w+)\s*(?:=|\{|$)"
    matches = [re.match(declaration, line) for line in re.split(r";\s*", bodies[0])]
    return [match.group(1) for match in matches if match]


def test_there_is_a_visitor_of_every_kind_of_options():
    structs = {struct for _, struct in visitors()}
    assert {"SgdOptions", "MnemosyneRuleOptions", "MetaConfig", "AttentionSite"} <= structs
    assert len(structs) >= 20


@pytest.mark.parametrize(("layer", "struct"), sorted(visitors()))
def test_the_visitor_names_every_member(layer, struct):
    said = visitors()[layer, struct]
    own = members(layer, struct)
    assert own, f"no members found in {struct}"
    missing = [name for name in own if not re.search(rf"\.{name}\b", said)]
    assert set(missing) == LEFT_OUT.get(struct, set())


def defaults_of(module: nn.module.LibraryModule) -> dict:
    return dict(module._arguments[0])


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        (nn.FourierPosition, {"num_heads": 2}),
        (nn.DampedPosition, {"num_heads": 2}),
        (nn.LinearAttention, {"embed_dim": 8, "num_heads": 2}),
    ],
)
def test_signatures_have_the_options_of_the_library(kind, given):
    options = defaults_of(kind(**given))
    shown = inspect.signature(kind.__init__).parameters
    named = {n: p.default for n, p in shown.items() if n in options and n not in given}
    assert set(options) == set(named) | set(given)
    options["seed"] = None  # drawn where there is none
    assert named == {name: options[name] for name in named}


def test_the_type_of_an_attention_has_the_options_of_the_library():
    assert set(AttentionChoice.__annotations__) == set(nn.ViT().attention)


def test_a_name_that_nothing_has_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match="expected one of .*exact_length.*, got .depth"):
        nn.ViT(attention={"depth": 1})
    with pytest.raises(ValueError, match=r"\[num_features\] expected a value of another type"):
        nn.ViT(attention={"num_features": "many"})


def test_parts_of_an_attention_have_their_own_options():
    model = nn.ViT(attention={"spectrum": "shift_invariant", "kernel": "matern", "matern_nu": 0.5})
    position = model.block0.attention.position
    assert position.options["kind"] == "shift_invariant"
    assert position.options["kernel"] == "matern"
    assert position.options["matern_nu"] == 0.5
