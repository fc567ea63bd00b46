"""What the training files of Axolotl and LLaMA-Factory call things beside the settings of `train`.

Those settings are in `config.names`; `config.imported` reads such a file with both.
"""

from __future__ import annotations

from collections.abc import Mapping

AXOLOTL, LLAMA_FACTORY = "Axolotl", "LLaMA-Factory"
USUAL: Mapping[str, Mapping[str, object]] = {
    AXOLOTL: {
        "adapter": "full", "lora_dropout": 0.0, "micro_batch_size": 1, "num_epochs": 1,
        "gradient_accumulation_steps": 1, "optimizer": "adamw_torch_fused", "overlong": "drop",
        "lr_scheduler": "cosine", "sequence_len": 512, "gradient_checkpointing": False,
        "group_by_length": False,
    },
    LLAMA_FACTORY: {
        "finetuning_type": "lora", "lora_rank": 8, "lora_dropout": 0.0, "learning_rate": 5e-5,
        "num_train_epochs": 3, "per_device_train_batch_size": 8, "optim": "adamw_torch",
        "gradient_accumulation_steps": 1, "cutoff_len": 2048, "overlong": "drop",
        "group_by_length": False,
    },
}  # fmt: skip
"""What a training file of another program means by what it leaves out, where that is not ours."""
MODEL = {
    "base_model": "id", "model_name_or_path": "id", "model_revision": "revision",
    "revision_of_model": "revision", "trust_remote_code": "trust_remote_code",
    "rope_scaling": "rope_scaling", "enable_thinking": "thinking",
    "attn_implementation": "attn_implementation", "chat_template_kwargs": "template_kwargs",
    "chat_template_jinja": "chat_template",
}  # fmt: skip
"""Keys of the model that mean the same here."""
ATTENTION = {
    "flash_attention": "flash_attention_2", "flash_attn": "flash_attention_2",
    "sdp_attention": "sdpa", "eager_attention": "eager", "flex_attention": "flex_attention",
}  # fmt: skip
KINDS = {"fa2": "flash_attention_2", "sdpa": "sdpa", "auto": None}
"""Values of LLaMA-Factory's `flash_attn`."""
WITHOUT = {
    "do_train": "a study trains", "stage": "supervised fine-tuning is what is done",
    "output_dir": "the run folder is runs/NAME", "template": "the tokenizer's own template is used",
    "chat_template": "the tokenizer's own template is used; another: model.chat_template",
    **dict.fromkeys(("model_type", "tokenizer_type"), "it is read from the model's files"),
    **dict.fromkeys(
        ("dataset_prepared_path", "overwrite_cache", "preprocessing_num_workers",
         "dataset_num_proc", "dataset_processes"), "data is read when a run begins"),
}  # fmt: skip
COLUMNS = {
    "prompt": "instruction", "query": "input", "response": "output", "history": "history",
    "messages": "messages", "system": "system", "tools": "tools",
    "field_instruction": "instruction", "field_input": "input", "field_output": "output",
    "field_system": "system", "field_messages": "messages",
}  # fmt: skip
"""What both programs call the columns of a data set, and what they are called here."""
TRACKERS = ("tensorboard", "wandb", "mlflow", "trackio")
FORMS = ("json", "csv", "parquet", "arrow", "text")
"""What Axolotl takes for a path beside `data_files`."""
TURNS = ("conversations", "messages", "conversation")
"""Columns of turns that are known without being named."""


def program_of(values: Mapping[str, object]) -> str:
    """Whose training file a mapping looks like: `AXOLOTL`, `LLAMA_FACTORY`, or "" for a study."""
    if "tasks" in values or "arms" in values:
        return ""
    if "base_model" in values and {"datasets", "adapter", "micro_batch_size"} & set(values):
        return AXOLOTL
    own = {"dataset", "stage", "finetuning_type", "template"}
    return LLAMA_FACTORY if "model_name_or_path" in values and own & set(values) else ""
