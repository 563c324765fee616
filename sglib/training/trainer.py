"""TRL's `GRPOTrainer` on whole trajectories: token ids, policy mask and per-token advantages come from a rollout."""

from __future__ import annotations

import contextlib
import warnings

import torch
from trl import GRPOTrainer
from trl.trainer.utils import use_adapter

from sglib.advantages.formulas import to_tokens
from sglib.training import forward


def _episode_return(completions, episode_return, **_):
    # TRL wants a reward function. Its own advantages are replaced below; this only feeds its logs.
    return episode_return


class TrajectoryGRPOTrainer(GRPOTrainer):
    """TRL's `GRPOTrainer`, trained on trajectories with per-token advantages.

    Args:
        sample: called with the iteration; returns the trajectories of its batch, with `turn.advantage` set.
        finish: called with the iteration and TRL's logs after its last optimiser step.
        first_iteration: where to start counting; more than 0 when a run is resumed.
        optimizer_state: what `optimizer_tensors` returned, to continue from.
        total_updates: optimiser steps of the whole run for a linearly falling rate; None keeps the rate constant.
        **kwargs: as `GRPOTrainer`.
    """

    def __init__(self, *, sample, finish, first_iteration: int = 0, optimizer_state=None, total_updates=None, **kwargs):
        self._total_updates = total_updates
        self._sample, self._finish, self._first_iteration = sample, finish, first_iteration
        self._optimizer_state, self._last_logps, self._gap = optimizer_state, None, [0.0, 0]
        self._wanted = None  # the policy's tokens (B, C) in the micro-batch that is read now
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*rollout_func.*experimental")
            super().__init__(reward_funcs=[_episode_return], rollout_func=self._play, **kwargs)
        self._lean = not (self.args.bf16 or self.args.fp16) and forward.readable(self.model)

    @property
    def iteration(self) -> int:
        """The iteration whose batch is played or trained on now."""
        return self._first_iteration + self.state.global_step // self.num_iterations

    def _play(self, prompts, trainer):
        # The rollout puts the model into eval mode; TRL tells training from evaluation by the mode it finds afterwards.
        # And it gets the model's own forward: accelerate's, under autocast, returns keys and values of another type
        # than the weights have, which a cache of the weights' type does not take.
        training, forward = self.model.training, self.model.__dict__.pop("forward", None)
        self.model.eval()
        try:
            trajectories = self._sample(self.iteration)
        finally:
            self.model.train(training)
            if forward is not None:
                self.model.forward = forward
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
        # As TRL's, except that it would shuffle the batch and pad every micro-batch to the longest sequence of all.
        # The loss is a sum over micro-batches, so sorting by length changes nothing but the padding.
        steps = self.args.steps_per_generation
        if self._buffered_inputs is None or self._step % (steps * self.num_iterations) == 0:
            self._buffered_inputs = split_by_length(self._generate_and_score_completions(generation_batch), steps)
        return self._buffered_inputs[self._step % steps]

    def _get_per_token_logps_and_entropies(self, model, input_ids, attention_mask, logits_to_keep, *args, **kwargs):
        if self._wanted is None:
            return None, None, None  # before the first micro-batch, see `_compute_loss`
        wanted = torch.nn.functional.pad(self._wanted.bool(), (input_ids.shape[1] - logits_to_keep, 0))
        if self._lean:
            found = forward.policy_logps(model, input_ids, wanted, self.temperature)
        else:
            # Padded on the right only, see `split_by_length`: no attention mask is needed, and torch's attention is
            # faster without. The labels say at which positions TRL computes logits (on a GPU; on a CPU at all).
            with self.accelerator.autocast():
                out = model(input_ids=input_ids, labels=input_ids.masked_fill(~wanted, -100), fused_lm_head=True)
            found = out.log_probs, out.entropy
        logps, entropies = (values[:, -logits_to_keep:] for values in found)
        self._last_logps = logps.detach()
        return logps, entropies, None

    def _compute_loss(self, model, inputs):
        # What TRL would compute of the whole batch at once, padded on both sides and at all tokens, before the first
        # step on it (log-probabilities of the policy as it was then, and of the reference) is here computed of each
        # micro-batch, at the policy's tokens, when it first comes up; the former by the forward pass of its first step.
        first_step = self.state.global_step % self.num_iterations == 0
        self._wanted = inputs["completion_mask"] * inputs["tool_mask"]
        if self.beta and "ref_per_token_logps" not in inputs:
            inputs["ref_per_token_logps"] = self._reference_logps(inputs)
        # Where no token has an advantage there is no gradient, so the forward pass alone will do. One micro-batch of a
        # step must have one all the same, or the optimiser would not see gradients that are 0.
        learns = self.beta or self._step % self.args.steps_per_generation == 0 or bool(inputs["advantages"].any())
        with contextlib.nullcontext() if learns else torch.no_grad():
            loss = super()._compute_loss(model, inputs)
        if first_step:  # before any step on this batch the rollout and the trainer should agree
            gap = ((self._last_logps - inputs["sampling_per_token_logps"]).abs() * self._wanted).sum().item()
            self._gap = [self._gap[0] + gap, self._gap[1] + int(self._wanted.sum())]
            if self.num_iterations > 1:
                inputs["old_per_token_logps"] = self._last_logps
        return loss if learns else loss.requires_grad_()

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
        if self._total_updates is None:
            return super().create_scheduler(num_training_steps, optimizer)
        # counted over the whole run: transformers' own would start anew where a run is resumed
        done, total = self._first_iteration * self.num_iterations, self._total_updates
        self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer if optimizer is None else optimizer, lambda step: max(0.0, 1 - (done + step) / total)
        )
        return self.lr_scheduler

    def optimizer_tensors(self) -> dict[str, torch.Tensor]:
        """AdamW's state as flat tensors, named "<slot>|<parameter>": no pickle is needed to store it."""
        names = _parameter_order(self.model, self.optimizer)
        state = self.optimizer.state_dict()["state"]
        return {f"{slot}|{names[i]}": t.detach().cpu().contiguous() for i, s in state.items() for slot, t in s.items()}

    def report(self, iteration: int, numbers: dict) -> None:
        """Hand an iteration's numbers (of `sglib.training.train`) to the trackers of `args.report_to`."""
        there = {k: v for k, v in numbers.items() if isinstance(v, (int, float)) and not isinstance(v, bool)}
        logs = {k.replace("eval/", "eval_", 1): v for k, v in there.items()}  # which trackers group as eval/
        with self._counted(iteration):
            self.callback_handler.on_log(self.args, self.state, self.control, logs)

    @contextlib.contextmanager
    def _counted(self, iteration: int):
        # trackers read the step from the state; a resumed run's own starts at 0 again
        step, self.state.global_step = self.state.global_step, iteration
        try:
            yield
        finally:
            self.state.global_step = step

    def log(self, logs, start_time=None):
        step = self.state.global_step
        with self._counted(self._first_iteration + step // self.num_iterations):
            super().log(logs, start_time)
        if "grad_norm" in logs and step % self.num_iterations == 0:
            gap, self._gap = self._gap, [0.0, 0]
            logs["logprob_gap"] = gap[0] / gap[1] if gap[1] else None
            self._finish(self._first_iteration + step // self.num_iterations - 1, logs)


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
