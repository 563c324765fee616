"""TRL's `GRPOTrainer` on whole trajectories: token ids, policy mask and per-token advantages come from a rollout."""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Iterator

import torch
from peft import PeftModel
from trl import GRPOTrainer
from trl.trainer.utils import add_fused_lm_head, use_adapter

from sglib.advantages.formulas import to_tokens
from sglib.models.policy import eval_mode
from sglib.training import forward
from sglib.training.shared import silence


def _episode_return(completions, episode_return, **_):
    # TRL wants a reward function. Its own advantages are replaced below; this only feeds its logs.
    return episode_return


class TrajectoryGRPOTrainer(GRPOTrainer):
    """TRL's `GRPOTrainer`, trained on trajectories with an advantage for each token.

    A subclass has `sample(iteration)`, which returns the trajectories of its batch with `turn.advantage` set;
    `log_probabilities(model, ids, wanted)`, as `forward.policy_logps` without a temperature; and
    `loss(model, micro_batch)`.

    Args:
        args: `max_steps` counts the whole run, also where it is resumed.
        start, optimizer_state: the iteration to begin with and what `optimizer_tensors` returned, of a resumed run.
        linear: whether the learning rate falls to 0 over `max_steps`; else it is constant.
    """

    # The check list for an upgrade of TRL (now 1.16) or transformers (now 5.23): every method of theirs that is
    # overridden, what theirs does, and why ours differs. Compare each with its new version.
    #
    # _init_training_state                    transformers: counts steps from 0. Ours: from where a resumed run goes on,
    #                                         since our checkpoints are not transformers'.
    # _generate_and_score_completions         TRL: makes the batch, with one advantage for each sequence. Ours: with one
    #                                         for each token.
    # _prepare_inputs                         TRL: shuffles the batch, pads it to its longest sequence and splits it.
    #                                         Ours: sorts it by length first, so that there is little padding.
    # _get_per_token_logps_and_entropies      TRL: computes logits for all completion tokens. Ours: for the policy's.
    # _compute_loss                           TRL: finds log-probabilities of the reference and of the policy before the
    #                                         first step in the batch, all at once and at all tokens. Ours: reads each
    #                                         micro-batch when it first comes up, and the policy's in the first step
    #                                         itself, at the policy's tokens.
    # create_optimizer, create_scheduler      transformers: start fresh. Ours: go on with a resumed run.
    #
    # Also used: self._step (micro-batches so far), self._buffered_inputs, self.ref_model, and the names of the batch's
    # tensors (tool_mask, sampling_per_token_logps, old_per_token_logps, ref_per_token_logps).

    def __init__(self, *, model, args, start: int = 0, optimizer_state=None, linear: bool = False, **kwargs):
        self._start, self._optimizer_state, self._linear = start, optimizer_state, linear
        self._last_logps, self._gap = None, [0.0, 0]
        self._wanted = None  # the policy's tokens (B, C) in the micro-batch that is read now
        # TRL loads a reference by its name, which a model in memory need not have. An adapter it copies itself.
        reference = None
        if args.beta and not isinstance(model, PeftModel):
            reference, beta, args.beta = copy.deepcopy(model).requires_grad_(False), args.beta, 0.0
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*rollout_func.*experimental")
            super().__init__(model=model, args=args, reward_funcs=[_episode_return], rollout_func=self._play, **kwargs)
        self.aux_loss_enabled = False  # the load balancing of mixtures of experts is none of the papers' losses
        silence(self)
        if reference is not None:
            add_fused_lm_head(reference, temperature=self.temperature, outputs=("log_probs", "entropy"))
            self.ref_model, self.beta = self.accelerator.prepare_model(reference, evaluation_mode=True), beta
        self.lean = not (self.args.bf16 or self.args.fp16) and forward.readable(self.model)

    @property
    def iteration(self) -> int:
        """The iteration whose batch is played or trained on now; after its last optimiser step, the next one."""
        return self.state.global_step // self.num_iterations

    @property
    def logprob_gap(self) -> float | None:
        """Mean absolute difference between the batch's log-probabilities in the rollout and here, nats; None before
        the first step."""
        return self._gap[0] / self._gap[1] if self._gap[1] else None

    @contextlib.contextmanager
    def acting(self) -> Iterator[None]:
        """The model as rollouts need it: in eval mode, and with its own forward. Accelerate's, under autocast, returns
        keys and values of another type than the weights have, which a cache of the weights' type does not take."""
        forward = self.model.__dict__.pop("forward", None)
        try:
            with eval_mode(self.model):
                yield
        finally:
            if forward is not None:
                self.model.forward = forward

    def _init_training_state(self, *args, **kwargs):
        found = super()._init_training_state(*args, **kwargs)
        self.state.global_step = self._start * self.num_iterations
        return found

    def _play(self, prompts, trainer):
        with self.acting():
            trajectories = self.sample(self.iteration)
        if len(trajectories) != len(prompts):
            raise ValueError(f"rollout: returned {len(trajectories)} trajectories; expected {len(prompts)}")
        for t in trajectories:
            if not (len(t.completion_ids) == len(t.mask) == len(t.logprobs) > 0 and t.prompt_ids):
                raise ValueError(f"rollout: game {t.game_id!r}: empty, or ids, mask and logprobs of different lengths")
        return {
            "prompt_ids": [t.prompt_ids for t in trajectories],
            "completion_ids": [t.completion_ids for t in trajectories],
            "logprobs": [t.logprobs for t in trajectories],
            "env_mask": [t.mask for t in trajectories],
            # Further fields are copied by TRL into the rows of the batch, in this order.
            "episode_return": [t.total_return for t in trajectories],
            "token_advantages": [
                to_tokens([turn.advantage for turn in t.turns], [turn.span for turn in t.turns], t.mask)
                for t in trajectories
            ],
        }

    def _generate_and_score_completions(self, inputs):
        self._wanted = None
        output = super()._generate_and_score_completions(inputs)
        advantages = torch.zeros(output["completion_ids"].shape, dtype=torch.float32)
        for i, row in enumerate(inputs):
            values = torch.as_tensor(row["token_advantages"])
            advantages[i, : len(values)] = values
        output["advantages"] = advantages.to(output["completion_ids"].device)  # (B, C) in place of TRL's (B,)
        return output

    def _prepare_inputs(self, generation_batch):
        # the loss is a sum over micro-batches, so sorting by length changes nothing but the padding
        steps = self.args.steps_per_generation
        if self._buffered_inputs is None or self._step % (steps * self.num_iterations) == 0:
            self._gap = [0.0, 0]
            self._buffered_inputs = split_by_length(self._generate_and_score_completions(generation_batch), steps)
        return self._buffered_inputs[self._step % steps]

    def _get_per_token_logps_and_entropies(self, model, input_ids, attention_mask, logits_to_keep, *args, **kwargs):
        if self._wanted is None:
            return None, None, None  # before the first micro-batch, see `_compute_loss`
        wanted = torch.nn.functional.pad(self._wanted.bool(), (input_ids.shape[1] - logits_to_keep, 0))
        found = self.log_probabilities(model, input_ids, wanted)
        logps, entropies = (values[:, -logits_to_keep:] for values in found)
        self._last_logps = logps.detach()
        return logps, entropies, None

    def _compute_loss(self, model, inputs):
        first_step = self.state.global_step % self.num_iterations == 0
        self._wanted = inputs["completion_mask"] * inputs["tool_mask"]
        if self.beta and "ref_per_token_logps" not in inputs:
            inputs["ref_per_token_logps"] = self._reference_logps(inputs)
        loss = self.loss(model, inputs)
        if first_step:  # before any step on this batch the rollout and the trainer should agree
            gap = ((self._last_logps - inputs["sampling_per_token_logps"]).abs() * self._wanted).sum().item()
            self._gap = [self._gap[0] + gap, self._gap[1] + int(self._wanted.sum())]
            if self.num_iterations > 1:
                inputs["old_per_token_logps"] = self._last_logps
        return loss

    @torch.no_grad()
    def _reference_logps(self, inputs):
        ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1)
        model, adapter = self.ref_model, contextlib.nullcontext()
        if model is None:  # as in TRL: the adapter's copy from before training, or the model without the new adapter
            model = self.accelerator.unwrap_model(self.model)
            adapter = use_adapter(model, "ref" if "ref" in model.peft_config else None)
        with adapter:
            return self._get_per_token_logps_and_entropies(model, ids, None, inputs["completion_ids"].shape[1])[0]

    def create_optimizer(self, model=None):
        optimizer = super().create_optimizer(model)
        if self._optimizer_state is not None:
            names = _parameter_order(self.model, optimizer)
            state = {i: {} for i in range(len(names))}
            for key, tensor in self._optimizer_state.items():
                slot, name = key.split("|", 1)
                state[names.index(name)][slot] = tensor
            optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
            self._optimizer_state = None
        return optimizer

    def create_scheduler(self, num_training_steps, optimizer=None):
        optimizer, done = optimizer or self.optimizer, self.state.global_step
        rate = (lambda step: max(0.0, 1 - (done + step) / num_training_steps)) if self._linear else (lambda step: 1.0)
        self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
        return self.lr_scheduler

    def optimizer_tensors(self) -> dict[str, torch.Tensor]:
        """AdamW's state as flat tensors, named "<slot>|<parameter>": no pickle is needed to store it."""
        names = _parameter_order(self.model, self.optimizer)
        state = self.optimizer.state_dict()["state"]
        return {f"{slot}|{names[i]}": t.detach().cpu().contiguous() for i, s in state.items() for slot, t in s.items()}


def _parameter_order(model, optimizer) -> list[str]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return [names[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]


def split_by_length(batch: dict[str, torch.Tensor], parts: int) -> list[dict[str, torch.Tensor]]:
    """Split a padded batch into `parts` micro-batches of equal count, longest sequences first, padded on the right;
    sequences without any advantage come after all others.

    TRL pads prompts on the left, which needs an attention mask; sequences that all start in column 0 need none under
    causal attention, and torch's attention is faster without. So each row is moved left, and what its prompt is longer
    than the shortest prompt of the micro-batch becomes part of the completion, masked like an observation.

    Args:
        batch: TRL's generation batch: `prompt_ids` and `prompt_mask` (B, P), everything else (B, C) or a scalar. B is a
            multiple of `parts`. The mask of policy tokens is called `tool_mask`.
    """
    prompts, completions = batch["prompt_mask"].sum(1), batch["completion_mask"].sum(1)
    width = batch["prompt_ids"].shape[1]
    total = width + batch["completion_ids"].shape[1]
    learns = (batch["advantages"] != 0).any(1)
    order = torch.sort(prompts + completions + (total + 1) * learns, descending=True, stable=True).indices
    micro_batches = []
    for rows in order.chunk(parts):
        shortest, longest = int(prompts[rows].min()), int((prompts + completions)[rows].max())
        # Column of row i's j-th token, prompt and completion side by side; the padding goes round to the end.
        columns = (torch.arange(total, device=rows.device) + (width - prompts[rows])[:, None]) % total
        micro = {}
        for key, value in batch.items():
            if value.ndim == 0:
                micro[key] = value
            elif not key.startswith("prompt_"):
                prompt_key = key.replace("completion_", "prompt_")  # the same for what exists for completions only
                before = batch[prompt_key] if prompt_key != key else value.new_zeros(len(value), width)
                moved = torch.cat([before, value], dim=1)[rows].gather(1, columns)[:, :longest]
                micro[prompt_key], micro[key] = moved[:, :shortest], moved[:, shortest:]
        micro_batches.append(micro)
    return micro_batches
