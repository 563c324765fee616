"""TRL's `GRPOTrainer` on whole trajectories: token ids, policy mask and per-token advantages come from a rollout."""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Iterator, Sequence

import torch
from accelerate import DistributedType
from peft import PeftModel
from torch.distributed.tensor import DTensor, distribute_tensor
from trl import GRPOTrainer
from trl.trainer.utils import add_fused_lm_head, use_adapter

from sglib.advantages.formulas import to_tokens
from sglib.models import processes
from sglib.models.policy import eval_mode
from sglib.records import Trajectory
from sglib.training import forward
from sglib.training.shared import silence

# TRL's metrics that are means over a micro-batch's policy tokens
PER_TOKEN = ("entropy", "kl", "clip_ratio/low_mean", "clip_ratio/high_mean", "clip_ratio/region_mean")
CAP = 3.0  # of the ratio of two engines' probabilities, as TRL's


def _episode_return(completions, episode_return, **_):
    # TRL wants a reward function. Its own advantages are replaced below; this only feeds its logs.
    return episode_return


class TrajectoryGRPOTrainer(GRPOTrainer):
    """TRL's `GRPOTrainer`, trained on trajectories with an advantage for each token.

    A subclass has `sample(iteration)`, which returns the trajectories of its batch with `turn.advantage` set;
    `log_probabilities(model, ids, wanted)`, as `forward.policy_logps` without a temperature; and
    `loss(model, micro_batch)`.

    Several processes (`sglib.models.processes`): `sample` returns the trajectories of all of them, the same ones
    everywhere, and each trains on a part, in so many micro-batches as the others.

    Args:
        args: `max_steps` counts the whole run, also where it is resumed; `per_device_train_batch_size` is a process's
            part of the batch, all of it, with one accumulation step.
        micro_batch_size, tokens_per_micro_batch: see `sglib.training.settings.BatchSettings`.
        start, optimizer_state: the iteration to begin with and what `optimizer_tensors` returned, of a resumed run.
        corrected: whether another engine samples than this model: the loss of each token is then multiplied by the
            ratio of its two probabilities before the first step, at most 3, as TRL's does for vLLM ("token_truncate").
            TRL's default leaves out sequences by their product, which over an episode's many answers is most of them.
        linear: whether the learning rate falls to 0 over `max_steps`; else it is constant.
    """

    # The check list for an upgrade of TRL (now 1.16) or transformers (now 5.23): every method of theirs that is
    # overridden, what theirs does, and why ours differs. Compare each with its new version.
    #
    # _init_training_state                    transformers: counts steps from 0. Ours: from where a resumed run goes on,
    #                                         since our checkpoints are not transformers'.
    # training_step                           transformers: accelerate's wrapper of the model averages gradients over
    #                                         processes, in the backward pass of its own forward. Ours: once, after all
    #                                         micro-batches, since the lean forward goes past the wrapper, and some
    #                                         micro-batches have no backward pass.
    # compute_loss                            TRL: the loss of one micro-batch; transformers counts accumulation steps,
    #                                         a fixed number. Ours: the loop over micro-batches, as many as fit.
    # log                                     TRL: means over micro-batches. Ours: over the batch's tokens.
    # _generate_and_score_completions         TRL: makes the batch, with one advantage for each sequence. Ours: with one
    #                                         for each token.
    # _prepare_inputs                         TRL: shuffles the batch, pads it to its longest sequence and splits it.
    #                                         Ours: sorts it by length first, so that there is little padding.
    # _get_per_token_logps_and_entropies      TRL: computes logits for all completion tokens. Ours: for the policy's.
    # _compute_loss                           TRL: "grpo" is a mean over the micro-batch's sequences. Ours: the batch's.
    #                                         TRL: finds log-probabilities of the reference and of the policy before the
    #                                         first step in the batch, all at once and at all tokens. Ours: reads each
    #                                         micro-batch when it first comes up, and the policy's in the first step
    #                                         itself, at the policy's tokens.
    # create_optimizer, create_scheduler      transformers: start fresh. Ours: go on with a resumed run.
    #
    # Also used: self._step (optimiser steps of this call), self._buffered_inputs (the batch's micro-batches),
    # self.ref_model, self._metrics, and the names of the batch's tensors (tool_mask, sampling_per_token_logps,
    # old_per_token_logps, ref_per_token_logps).

    def __init__(
        self, *, model, args, start: int = 0, optimizer_state=None, linear: bool = False, micro_batch_size: int = 8,
        tokens_per_micro_batch: int | None = None, corrected: bool = False, **kwargs,
    ):  # fmt: skip
        self._corrected = corrected
        self._start, self._optimizer_state, self._linear = start, optimizer_state, linear
        self._rows, self._tokens = micro_batch_size, tokens_per_micro_batch
        self._last_logps, self._gap, self._counts = None, [0.0, 0], []
        # Where weights or optimiser lie in pieces (FSDP, DeepSpeed), a copy is trained, and the model itself plays.
        self._player, model = model, copy.deepcopy(model) if processes.in_pieces() else model
        self.opens = True  # whether the micro-batch that is read now is the first of its step
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
            self.ref_model, self.beta = reference.to(self.accelerator.device), beta
        kind = self.accelerator.distributed_type
        self.zero = kind == DistributedType.DEEPSPEED
        self.pieces = self.zero or kind == DistributedType.FSDP
        if self.pieces != processes.in_pieces():
            raise ValueError(f"accelerate: got FSDP or DeepSpeed, but {kind.value} here; allowed: on GPUs")
        plain = not (self.args.bf16 or self.args.fp16 or self.args.gradient_checkpointing or self.pieces)
        self.lean = plain and forward.readable(self.model)

    @property
    def iteration(self) -> int:
        """The iteration whose batch is played or trained on now; after its last optimiser step, the next one."""
        return self.state.global_step // self.num_iterations

    @property
    def logprob_gap(self) -> float | None:
        """Mean absolute difference between the batch's log-probabilities in the rollout and here, nats; None before
        the first step. Asked by every process."""
        apart, tokens = (sum(values) for values in zip(*processes.everyone(self._gap), strict=True))
        return apart / tokens if tokens else None

    @contextlib.contextmanager
    def acting(self) -> Iterator[None]:
        """The model as rollouts need it: in eval mode, and with its own forward. Accelerate's, under autocast, returns
        keys and values of another type than the weights have, which a cache of the weights' type does not take."""
        model = self.player()
        forward = model.__dict__.pop("forward", None)
        try:
            with eval_mode(model):
                yield
        finally:
            if forward is not None:
                model.forward = forward

    @torch.no_grad()
    def player(self):
        """The model with all its weights as they are now, in every process; asked by all of them."""
        if self.pieces:
            for (name, mine), (other, trained) in zip(
                self._player.named_parameters(), self.model.named_parameters(), strict=True
            ):
                assert name == other
                mine.copy_(_whole(trained))
        return self._player

    def _init_training_state(self, *args, **kwargs):
        found = super()._init_training_state(*args, **kwargs)
        self.state.global_step = self._start * self.num_iterations
        return found

    def _play(self, prompts, trainer):
        with self.acting():
            trajectories = self.sample(self.iteration)
        expected = len(prompts) * processes.count()
        if len(trajectories) != expected:
            raise ValueError(f"rollout: returned {len(trajectories)} trajectories; expected {expected}")
        for t in trajectories:
            if not (len(t.completion_ids) == len(t.mask) == len(t.logprobs) > 0 and t.prompt_ids):
                raise ValueError(f"rollout: game {t.game_id!r}: empty, or ids, mask and logprobs of different lengths")
        trajectories = dealt(trajectories)
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
        if self._buffered_inputs is None or self._step % self.num_iterations == 0:
            self._gap = [0.0, 0]
            batch = self._generate_and_score_completions(generation_batch)
            order = by_length(batch)
            lengths = (batch["prompt_mask"].sum(1) + batch["completion_mask"].sum(1))[order].tolist()
            sizes = micro_batch_sizes(lengths, self._rows, self._tokens)
            sizes = spread(sizes, max(processes.everyone(len(sizes))))
            # the loss is a sum over micro-batches, so sorting by length changes nothing but the padding
            self._buffered_inputs = split(batch, order.split(sizes))
        return self._buffered_inputs

    def training_step(self, model, inputs, num_items_in_batch=None):
        loss = super().training_step(model if self.zero else self.model, inputs, num_items_in_batch)
        if not self.pieces:
            processes.average(p.grad for p in self.model.parameters() if p.grad is not None)
        return loss

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """The loss of all micro-batches. All but the last have had their backward pass; its caller does the last."""
        total = 0.0
        for number, micro_batch in enumerate(inputs, 1):
            self.opens = number == 1
            loss = self._compute_loss(model, micro_batch)
            self.accelerator.gradient_state._set_sync_gradients(number == len(inputs))
            if number == len(inputs):
                return loss + total
            self.accelerator.backward(loss, **({"scale_wrt_gas": False} if self.zero else {}))
            total += loss.detach()

    def log(self, logs, start_time=None):
        tokens, self._counts = self._counts, []
        for name, values in self._metrics["train"].items():
            if name in PER_TOKEN and sum(tokens):
                values[:] = [sum(x * n for x, n in zip(values, tokens, strict=True)) / sum(tokens)]
        super().log(logs, start_time)

    def _get_per_token_logps_and_entropies(self, model, input_ids, attention_mask, logits_to_keep, *args, **kwargs):
        if self._wanted is None:
            return None, None, None  # before the first micro-batch, see `_compute_loss`
        wanted = torch.nn.functional.pad(self._wanted.bool(), (input_ids.shape[1] - logits_to_keep, 0))
        found = self.log_probabilities(model, input_ids, wanted)
        logps, entropies = (values[:, -logits_to_keep:] for values in found)
        self._last_logps = logps.detach()
        if self.use_vllm and "importance_sampling_ratio" not in self._micro_batch:
            apart = (self._last_logps - self._micro_batch["sampling_per_token_logps"]) * self._wanted
            self._micro_batch["importance_sampling_ratio"] = apart.exp().clamp(max=CAP)
        return logps, entropies, None

    def _compute_loss(self, model, inputs):
        first_step = self.state.global_step % self.num_iterations == 0
        self._wanted = inputs["completion_mask"] * inputs["tool_mask"]
        if self.beta and "ref_per_token_logps" not in inputs:
            inputs["ref_per_token_logps"] = self._reference_logps(inputs)
        self._micro_batch, self.use_vllm = inputs, self._corrected  # TRL's name for "sampled elsewhere"
        loss = self.loss(model, inputs)
        self.use_vllm = False
        if self.loss_type == "grpo":
            loss = loss / (self.args.per_device_train_batch_size / len(self._wanted))
        self._counts.append(int(self.accelerator.reduce(self._wanted.sum())))
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
        if not self.pieces:
            self._restore(optimizer)
        return optimizer

    def _restore(self, optimizer) -> None:
        if self._optimizer_state is not None:
            names, tensors = _parameter_order(self.model, optimizer), dict(self.model.named_parameters())
            state = {i: {} for i in range(len(names))}
            for key, tensor in self._optimizer_state.items():
                slot, name = key.split("|", 1)
                state[names.index(name)][slot] = _as_pieces(tensor, tensors[name])
            optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
            self._optimizer_state = None

    def create_scheduler(self, num_training_steps, optimizer=None):
        self._restore(optimizer or self.optimizer)  # here its parameters are what they will be
        optimizer, done = optimizer or self.optimizer, self.state.global_step
        rate = (lambda step: max(0.0, 1 - (done + step) / num_training_steps)) if self._linear else (lambda step: 1.0)
        self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
        return self.lr_scheduler

    def optimizer_tensors(self) -> dict[str, torch.Tensor]:
        """AdamW's state as flat tensors, named "<slot>|<parameter>": no pickle is needed to store it. Asked by every
        process. Empty under DeepSpeed, whose optimiser has flat pieces of many parameters together."""
        if self.zero:
            return {}
        names = _parameter_order(self.model, self.optimizer)
        state = self.optimizer.state_dict()["state"]
        tensors = {f"{slot}|{names[i]}": _whole(t) for i, slots in state.items() for slot, t in slots.items()}
        return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _whole(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor of which each process may have a piece, all of it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _as_pieces(tensor: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """A tensor as the parameter that it belongs to: a piece in each process, where that is."""
    if not isinstance(parameter, DTensor) or tensor.shape != parameter.shape:
        return tensor
    return distribute_tensor(tensor.to(parameter.device), parameter.device_mesh, parameter.placements)


def _parameter_order(model, optimizer) -> list[str]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return [names[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]


def dealt(trajectories: list[Trajectory]) -> list[Trajectory]:
    """The ones of a batch that this process trains on: each gets as many, and of much the same length."""
    order = sorted(range(len(trajectories)), key=lambda i: -len(trajectories[i].prompt_ids + trajectories[i].mask))
    mine = order[processes.rank() :: processes.count()] if processes.count() > 1 else range(len(trajectories))
    return [trajectories[i] for i in mine]


def by_length(batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Places (B,) of a batch's sequences, the longest first, those without any advantage after all others."""
    lengths, learns = batch["prompt_mask"].sum(1) + batch["completion_mask"].sum(1), (batch["advantages"] != 0).any(1)
    return torch.sort(lengths + (lengths.max() + 1) * learns, descending=True, stable=True).indices


def micro_batch_sizes(lengths: Sequence[int], rows: int, tokens: int | None) -> list[int]:
    """How many of B sequences of these lengths, in this order, each micro-batch has. With `tokens` as many as have at
    most so many with their padding, but at least one: none is cut. Without, the largest divisor of B up to `rows`."""
    if tokens is None:
        size = max(n for n in range(1, min(rows, len(lengths)) + 1) if len(lengths) % n == 0)
        return [size] * (len(lengths) // size)
    sizes, longest = [], 0
    for length in lengths:
        longest = max(longest, length)
        if sizes and (sizes[-1] + 1) * longest <= tokens:
            sizes[-1] += 1
        else:
            sizes.append(1)
            longest = length
    return sizes


def spread(sizes: Sequence[int], count: int) -> list[int]:
    """The same sequences in `count` micro-batches, as many as the process has that needs the most: the largest are
    halved."""
    sizes = list(sizes)
    while len(sizes) < count:
        largest = sizes.index(max(sizes))
        sizes[largest : largest + 1] = [-(-sizes[largest] // 2), sizes[largest] // 2]
    return sizes


def split(batch: dict[str, torch.Tensor], parts: Sequence[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
    """A padded batch as micro-batches of the rows in `parts`, padded on the right.

    TRL pads prompts on the left, which needs an attention mask; sequences that all start in column 0 need none under
    causal attention, and torch's attention is faster without. So each row is moved left, and what its prompt is longer
    than the shortest prompt of the micro-batch becomes part of the completion, masked like an observation.

    Args:
        batch: TRL's generation batch: `prompt_ids` and `prompt_mask` (B, P), everything else (B, C) or a scalar. The
            mask of policy tokens is called `tool_mask`.
    """
    prompts, completions = batch["prompt_mask"].sum(1), batch["completion_mask"].sum(1)
    width = batch["prompt_ids"].shape[1]
    total = width + batch["completion_ids"].shape[1]
    micro_batches = []
    for rows in parts:
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
