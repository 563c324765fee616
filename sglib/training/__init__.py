"""Training: pre-training of the base model, supervised warmup, GRPO, and the arms of a comparison side by side."""

import warnings

# transformers renames an argument that TRL passes on; nothing here can change that, and it repeats in every notebook
warnings.filterwarnings("ignore", message=".*gradient_checkpointing.*", category=FutureWarning)
