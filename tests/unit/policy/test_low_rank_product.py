"""The adapter's layer computes what PEFT's own does, forward and backward."""

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import Linear

from fastslow.policy.adapter.linear import InPlaceLinear


class Layers(torch.nn.Module):
    """Two linear layers, one with a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(12, 20)
        self.second = torch.nn.Linear(20, 7, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.tanh(self.first(x)))  # type: ignore[no-any-return]


def adapted(adapters: int) -> Any:
    """The layers under so many active adapters, of different ranks and scalings, none zero."""
    torch.manual_seed(0)
    config = LoraConfig(r=4, lora_alpha=6, target_modules=["first", "second"])
    config._register_custom_module({torch.nn.Linear: InPlaceLinear})
    model = get_peft_model(Layers(), config)
    if adapters == 2:
        model.add_adapter("more", LoraConfig(r=2, lora_alpha=8, target_modules=["first", "second"]))
        model.base_model.set_adapter(["default", "more"])
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_" in name:
                weight.copy_(torch.randn(weight.shape))
    return model


def gradients(model: torch.nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    """Output, gradient of the input, gradients of the adapters."""
    model.zero_grad()
    x = x.clone().requires_grad_()
    output = model(x)
    (output * torch.linspace(-1, 1, output.numel()).view_as(output)).sum().backward()
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    assert x.grad is not None
    return [output.detach(), x.grad, *grads]


@pytest.mark.parametrize("adapters", [1, 2])
@pytest.mark.parametrize("shape", [(5, 12), (2, 3, 12)])
def test_output_and_gradients_are_pefts(
    monkeypatch: pytest.MonkeyPatch, adapters: int, shape: tuple[int, ...]
) -> None:
    model = adapted(adapters)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    model.double()
    ours = gradients(model, x)
    with torch.no_grad():
        plain = model(x)
    monkeypatch.setattr(InPlaceLinear, "forward", Linear.forward)
    theirs = gradients(model, x)
    assert len(ours) == len(theirs) == 2 + 4 * adapters
    for mine, other in zip([*ours, plain], [*theirs, theirs[0]], strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-12)


def test_a_base_in_another_dtype_is_left_to_peft() -> None:
    model = adapted(1)
    for name, parameter in model.named_parameters():
        if "lora_" not in name:
            parameter.data = parameter.data.bfloat16()
    assert model(torch.randn(3, 12).bfloat16()).dtype == torch.bfloat16


def test_hooks_of_the_base_layer_are_called_and_an_adapter_that_is_off_adds_nothing() -> None:
    model = adapted(1)
    calls = []
    layer = model.get_submodule("base_model.model.first.base_layer")
    layer.register_forward_hook(lambda *_: calls.append(1))
    x = torch.randn(3, 12)
    model(x)
    assert calls
    with model.disable_adapter():
        off = model(x)
    plain = model.get_submodule("base_model.model")
    assert torch.equal(off, _base_of(plain, x))


def _base_of(model: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    first, second = (model.get_submodule(f"{name}.base_layer") for name in ("first", "second"))
    return second(torch.tanh(first(x)))  # type: ignore[no-any-return]
