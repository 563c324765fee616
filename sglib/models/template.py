"""What a chat template writes around answers, found by rendering conversations with markers when a model is loaded."""

from __future__ import annotations

from transformers import PreTrainedTokenizerFast

from sglib.models.endpoint import alternating

SYSTEM, ANSWER, OBSERVED = "MARKED SYSTEM", "MARKED ANSWER", "MARKED OBSERVATION"


class Template:
    """A tokenizer's chat template. `between` is what it writes from the end of an answer to the beginning of the next
    one, with `OBSERVED` in place of the observation.

    Appending only that keeps what the policy read and wrote as it was, also under templates that rewrite earlier
    answers. Templates with rules are served: neighbouring messages of one role become one, the system's text begins the
    first user message where the template has no place for it at the beginning, and a thought that the template opens is
    closed at once, unless the model shall be `thinking`.

    Raises:
        ValueError: there is no template, or what it writes after an answer is not the same at every turn.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, name: str, plain: bool = False, thinking: bool = False):
        """`plain`: a template of ours, which takes messages as they are."""
        if not tokenizer.chat_template:
            raise ValueError(
                f"{name}: its tokenizer has no chat template; allowed: an instruction-tuned model, or a folder whose "
                "tokenizer has one (set tokenizer.chat_template and save it)"
            )
        self._tokenizer, self._plain, self._thinking, self._folds = tokenizer, plain, thinking, False
        user, answer = {"role": "user", "content": OBSERVED}, {"role": "assistant", "content": ANSWER}
        try:
            self._folds = not plain and not self._begins_with_system([user, answer, user])
            short, long = (self.render([user, *[answer, user] * n]) for n in (1, 2))
        except Exception as error:  # templates raise what they like
            raise ValueError(
                f"{name}: its chat template cannot write a conversation of user and assistant ({error}); allowed: one "
                "that can (set tokenizer.chat_template and save it)"
            ) from error
        self.between = short[short.rfind(ANSWER) + len(ANSWER) :]
        if ANSWER not in short or self.between.count(OBSERVED) != 1:
            raise ValueError(f"{name}: the chat template does not write a user message after an answer")
        if self.between != long[long.rfind(ANSWER) + len(ANSWER) :]:
            raise ValueError(
                f"{name}: what its chat template writes after an answer depends on how long the conversation is; "
                "allowed: a template that only appends (set tokenizer.chat_template and save it)"
            )

    def _begins_with_system(self, messages: list[dict]) -> bool:
        try:
            text = self.render([{"role": "system", "content": SYSTEM}, *messages])
        except Exception:
            return False
        return text.count(SYSTEM) == 1 and text.find(SYSTEM) < text.find(OBSERVED)

    def render(self, messages: list[dict]) -> str:
        """A conversation up to where the policy writes."""
        given = {}
        if not self._plain:
            if self._folds:
                messages = [m | {"role": "user"} if m["role"] == "system" else m for m in messages]
            messages, given = alternating(messages), {"enable_thinking": self._thinking}
        text = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **given)
        if not self._thinking and text.rstrip().endswith("<think>"):
            text = f"{text.rstrip()}\n\n</think>\n\n"
        return text

    def end_id(self) -> int | None:
        """The control token with which the template ends an answer; None where it writes plain text."""
        ids = self._tokenizer(self.between.lstrip(), add_special_tokens=False)["input_ids"]
        known = self._tokenizer.added_tokens_decoder
        return ids[0] if ids[0] in known and ids[0] != self._tokenizer.unk_token_id else None
