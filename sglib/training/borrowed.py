"""A model that is lent to one of TRL's trainers comes back as it was, but for its weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def lent(model) -> Iterator[None]:
    """Take back what TRL (and accelerate under autocast) leave on a model, PEFT-wrapped or not: a `forward` replaced on
    the instance, with which a copy of the model would still call the original's weights; adapters that it added for a
    reference; gradients; the mode."""
    modules = (model, model.get_base_model() if hasattr(model, "peft_config") else model)
    patched = {id(m): (m, m.__dict__.get("forward")) for m in modules}
    adapters, training = set(getattr(model, "peft_config", ())), model.training
    try:
        yield
    finally:
        for module, forward in patched.values():
            module.__dict__.pop("forward", None)
            module.__dict__.pop("_original_forward", None)
            if forward is not None:
                module.forward = forward
        for name in set(getattr(model, "peft_config", ())) - adapters:
            model.delete_adapter(name)
        model.zero_grad(set_to_none=True)
        model.train(training)
