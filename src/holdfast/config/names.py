"""What other programs call the settings of a training: names that work here, and names that do not.

A name of transformers, TRL, PEFT, LLaMA-Factory, Axolotl, ms-swift or Unsloth either means one of
the settings of `train` (`ELSEWHERE`, beside the fields' own aliases), or is refused with what to
write instead (`FOREIGN`). `docs/study.md` lists the first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pydantic import AliasChoices, BaseModel

Reading = Callable[[object], object]
"""From the value under another program's name to the value here; None says nothing."""


def _as_it_is(value: object) -> object:
    return value


def _if_true(meant: str) -> Reading:
    return lambda value: meant if _yes(value) else None


def _yes(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("is true or false")
    return value


def _targets(value: object) -> object:
    if isinstance(value, str) and value.strip() in ("all", "all-linear"):
        return "all-linear"
    if isinstance(value, str) and "," in value and "(" not in value:
        return [word.strip() for word in value.split(",")]
    return value


def _share(value: object) -> object:
    try:
        share = float(value) if isinstance(value, int | float | str) else -1.0
    except ValueError:
        share = -1.0
    if isinstance(value, bool) or not 0 <= share < 1:
        raise ValueError("is a share of the run, from 0 to below 1; warmup_steps takes steps")
    return share


def _not(value: object) -> object:
    return not _yes(value)


def _bits(value: object) -> object:
    if value not in (4, None):
        raise ValueError("4 is what there is: the base in NF4, as `method: qlora` says")
    return "qlora" if value else None


def _unsloth(value: object) -> object:
    return value == "unsloth" or _yes(value)


ELSEWHERE: Mapping[str, tuple[str, Reading]] = {
    "lora_r": ("lora.r", _as_it_is),
    "lora_rank": ("lora.r", _as_it_is),
    "lora_alpha": ("lora.alpha", _as_it_is),
    "lora_dropout": ("lora.dropout", _as_it_is),
    "lora_target": ("lora.target_modules", _targets),
    "lora_target_modules": ("lora.target_modules", _targets),
    "target_modules": ("lora.target_modules", _targets),
    "lora_target_linear": ("lora.target_modules", _if_true("all-linear")),
    "lora_modules_to_save": ("lora.modules_to_save", _as_it_is),
    "additional_target": ("lora.modules_to_save", _as_it_is),
    "modules_to_save": ("lora.modules_to_save", _as_it_is),
    "use_dora": ("lora.variant", _if_true("dora")),
    "peft_use_dora": ("lora.variant", _if_true("dora")),
    "use_rslora": ("lora.variant", _if_true("rslora")),
    "peft_use_rslora": ("lora.variant", _if_true("rslora")),
    "warmup_ratio": ("warmup_steps", _share),
    "load_in_4bit": ("method", _if_true("qlora")),
    "quantization_bit": ("method", _bits),
    "quant_bits": ("method", _bits),
    "train_type": ("method", _as_it_is),
    "tuner_type": ("method", _as_it_is),
    "full_finetuning": ("method", _if_true("full")),
    "use_gradient_checkpointing": ("gradient_checkpointing", _unsloth),
    "split_dataset_ratio": ("val_size", _as_it_is),
    "adapter": ("method", _as_it_is),
    "finetuning_type": ("method", _as_it_is),
    "train_on_inputs": ("completion_only_loss", _not),
    "train_on_prompt": ("completion_only_loss", _not),
    "use_liger_kernel": ("kernels", _if_true("liger")),
    "enable_liger_kernel": ("kernels", _if_true("liger")),
    "use_liger": ("kernels", _if_true("liger")),
}
"""Names under `train:` that mean a setting of another name, or say it in another way: the setting
(dotted below `train`), and how the value is read."""
LISTS = {"lora.target_modules", "lora.modules_to_save"}
"""Settings that are lists themselves; for others a list is a sweep, and every entry is read."""

_CHECKPOINTS = "checkpoints are kept and measured as `checkpoints` or `save_steps` says"
_LOSS = "the loss of held-out examples is read at every checkpoint once `val_size` is given, and "
_LOSS += "every `eval_steps` besides"
_PICKED = "every checkpoint is kept and measured, and `holdfast ship` picks; to stop early, set "
_PICKED += "`early_stopping_patience`"
_PLACED = (
    "how a model is spread over GPUs is planned: name them in `hardware: {gpus: 2x24GiB}`, and "
)
_PLACED += "see `holdfast plan`"
_PACKED = "write `packing: true`: rows of at most `max_length` tokens, the examples kept apart"
_LOGS = "losses are in the run folder (`train/ARM/seedN/log.jsonl`) and in the report; for a "
_LOGS += "tracker write `track: [tensorboard, wandb, mlflow, trackio]`, any of them, at the top"
_RESUMED = "started again, a run goes on by itself from its last complete checkpoint"
_DATA = "data belongs to the task: `tasks: {mine: {kind: jsonl, role: target, train_path: ...}}`"
_ATTENTION = "write it under `model:`, for training and asking alike: `model: {id: ..., "
_ATTENTION += "attn_implementation: flash_attention_2}`"
_FUSED = "the loss is computed piece by piece already, so whole logits are never held; Liger's "
_FUSED += "layers are `kernels: liger`"
_BATCH = "write `per_device_train_batch_size` (examples per forward pass) or `global_batch_size` "
_BATCH += "(examples per step)"
_MODEL = "write it under `model:`: `model: {id: ...}`"
_TEMPLATE = "write it under `model:`: `model: {id: ..., chat_template: ...}`; left out, it is the "
_TEMPLATE += "tokenizer's own"
_NF4 = "`method: qlora` is NF4 with double quantisation, computed in the precision of training"
_SOURCE = "a study says what is run: leave it out"
_ROLES = "the loss falls on the last answer; write `train_on: all` for every assistant turn"
_PREFERRED = (
    "preferences and rewards are remedies of an arm: `arms: {mine: {loss: [dpo]}}`, or grpo; "
)
_PREFERRED += "see `holdfast methods dpo`"
_TOKENS = "the tokenizer stays as it is: add tokens to the base once, save it, and name that folder"
_SEEN = "text is what is trained on: what reads pictures and sounds stays as it is"
_BEGUN = "how an adapter begins is its variant's: see `lora.variant`"
_CUT = "examples are never cut: write `max_length` with `overlong: drop`"
_PLAIN = "rows of plain text are learned whole: `tasks: {mine: {kind: jsonl, train_path: ...}}`"
_ROPE = "write it under `model:`, for training and asking alike: `model: {id: ..., rope_scaling: "
_ROPE += "{rope_type: yarn, factor: 2.0}}`"

FOREIGN: Mapping[str, str] = {
    "stop": "a training is stopped by `meters.stop`, once a meter passes a limit; by a forecast of "
    "its end it is not, which had no skill (docs/remedies.md)",
    **dict.fromkeys(
        ("save_strategy", "save_only_model", "saves_per_epoch", "save_safetensors",
         "save_on_each_node", "save_checkpoint"), _CHECKPOINTS),
    **dict.fromkeys(
        ("load_best_model_at_end", "metric_for_best_model", "greater_is_better"), _PICKED),
    **dict.fromkeys(
        ("eval_strategy", "evaluation_strategy", "do_eval", "evals_per_epoch", "eval_on_start",
         "per_device_eval_batch_size", "eval_batch_size", "eval_dataset", "test_datasets",
         "val_dataset", "eval_accumulation_steps", "eval_delay"), _LOSS),
    **dict.fromkeys(
        ("deepspeed", "fsdp", "fsdp_config", "fsdp_version", "ddp_timeout", "device_map",
         "ddp_find_unused_parameters", "ddp_bucket_cap_mb", "accelerator_config",
         "tensor_parallel_size", "context_parallel_size", "parallelism_config", "num_gpus",
         "sequence_parallel_size", "ddp_backend", "dp_shard_size", "use_cpu", "no_cuda",
         "gpu_memory_limit", "max_memory", "auto_find_batch_size",
         "activation_offloading"), _PLACED),
    **dict.fromkeys(
        ("eval_packing", "padding_free", "packing_strategy", "pad_to_sequence_len",
         "pad_to_multiple_of", "multipack_real_batches", "eval_sample_packing", "shuffle_dataset",
         "group_by_modality_length"), _PACKED),
    **dict.fromkeys(
        ("report_to", "run_name", "wandb_project", "wandb_entity", "wandb_name", "wandb_run_id",
         "mlflow_experiment_name", "use_tensorboard", "logging_dir", "logging_strategy",
         "use_wandb", "use_swanlab", "swanlab_project", "plot_loss", "trackio_space_id",
         "logging_first_step", "disable_tqdm", "log_level"), _LOGS),
    **dict.fromkeys(
        ("resume_from_checkpoint", "auto_resume_from_checkpoints", "overwrite_output_dir",
         "overwrite_cache"), _RESUMED),
    **dict.fromkeys(
        ("dataset", "datasets", "dataset_name", "dataset_dir", "dataset_path", "data_path",
         "dataset_text_field", "train_file", "validation_file", "dataset_prepared_path",
         "dataset_config", "dataset_config_name", "max_samples", "dataset_num_proc", "mix_strategy",
         "preprocessing_num_workers", "dataset_kwargs", "tokenized_path", "streaming",
         "train_dataset", "interleave_probs", "remove_unused_columns", "columns",
         "lazy_tokenize"), _DATA),
    **dict.fromkeys(
        ("attn_implementation", "flash_attention", "flash_attn", "sdp_attention", "use_flash_attn",
         "attn_impl", "xformers_attention", "eager_attention", "flash_attention_2",
         "_attn_implementation"), _ATTENTION),
    **dict.fromkeys(("rope_scaling", "rope_parameters", "rope_theta", "overrides_of_model_config"),
                    _ROPE),
    **dict.fromkeys(
        ("liger_kernel_config", "liger_rope", "liger_rms_norm", "liger_glu_activation",
         "use_unsloth", "unsloth", "liger_fused_linear_cross_entropy", "chunked_cross_entropy"),
        _FUSED),
    **dict.fromkeys(("batch_size", "train_batch_size", "total_batch_size"), _BATCH),
    **dict.fromkeys(
        ("model_name_or_path", "base_model", "model_name", "pretrained_model_name_or_path",
         "model_path", "model_id", "adapter_name_or_path", "model_revision", "tokenizer_name",
         "base_model_config", "model_type", "tokenizer_type", "trust_remote_code",
         "model_init_kwargs"), _MODEL),
    **dict.fromkeys(
        ("template", "chat_template", "chat_template_path", "chat_template_kwargs",
         "enable_thinking", "default_system", "system", "use_chat_template", "agent_template"),
        _TEMPLATE),
    **dict.fromkeys(
        ("bnb_4bit_quant_type", "bnb_4bit_compute_dtype", "bnb_4bit_use_double_quant",
         "double_quantization", "quantization_type", "quantization_method",
         "bnb_config_kwargs", "quantization_config", "quant_method"), _NF4),
    **dict.fromkeys(
        ("do_train", "do_predict", "stage", "predict_with_generate", "model_author"), _SOURCE),
    **dict.fromkeys(
        ("rl", "trl", "rlhf_type", "beta", "dpo_beta", "pref_beta", "pref_loss", "pref_ftx", "orpo",
         "kto_desirable_weight", "ref_model", "reward_model", "reward_funcs"), _PREFERRED),
    **dict.fromkeys(("roles_to_train", "assistant_only_loss", "loss_scale"), _ROLES),
    **dict.fromkeys(
        ("special_tokens", "tokens", "eot_tokens", "eos_token", "pad_token", "add_tokens",
         "add_special_tokens", "resize_vocab", "resize_token_embeddings_to_32x"), _TOKENS),
    **dict.fromkeys(
        ("freeze_vit", "freeze_aligner", "freeze_vision_tower", "freeze_multi_modal_projector",
         "max_pixels", "image_max_pixels", "video_max_pixels", "processor_type"), _SEEN),
    **dict.fromkeys(("init_weights", "init_lora_weights", "loftq_config", "pissa_init"), _BEGUN),
    **dict.fromkeys(("truncation", "truncation_mode", "truncation_strategy"), _CUT),
    **dict.fromkeys(
        ("seed", "random_state"),
        "write `seeds: [1, 2, 3]` at the top of the study: one training per arm and seed"),
    "pretraining_dataset": _PLAIN,
    "embedding_learning_rate": "all that is trained has one `learning_rate`",
    "output_dir": "the run folder is `--runs-dir` and the study's `name`",
    **dict.fromkeys(
        ("push_to_hub", "hub_model_id"), "`holdfast ship RUN --push OWNER/NAME` does that"),
    "load_in_8bit": "a base in 8 bits is not trained on; `method: qlora` loads it in 4 bits",
    "label_smoothing_factor": "TRL's loss has no label smoothing any more, and would leave it out",
    "loss_type": "the loss is cross-entropy; what changes it stands under `loss:` of an arm",
    "train_on_responses_only": "that is how it is: the loss falls on the answer",
    "train_on_eos": "the token that ends an answer is always trained on",
    "mask_history": "that is how it is: the loss falls on the last answer",
    "train_sampling_strategy": "write `group_by_length: true`, or false for a random order",
    "length_column_name": "write `group_by_length: true`: lengths are counted here",
    "gradient_checkpointing_kwargs": "write `gradient_checkpointing: true`: it is not reentrant",
    "cosine_min_lr_ratio": "write `lr_scheduler_type: cosine_with_min_lr, lr_scheduler_kwargs: "
    "{min_lr_rate: 0.1}`",
    "min_lr": "write `lr_scheduler_type: cosine_with_min_lr, lr_scheduler_kwargs: {min_lr: 1e-6}`",
    "cosine_constant_lr_ratio": "write `lr_scheduler_type: warmup_stable_decay` with its "
    "`lr_scheduler_kwargs`",
    **dict.fromkeys(
        ("torch_compile_mode", "torch_compile_backend"),
        "write `torch_compile: max-autotune`, or true for torch's default mode; the backend is "
        "inductor"),
    **dict.fromkeys(
        ("torch_dtype", "dtype"), "write `bf16: true` or false; left out, it goes by the device"),
    "tf32": "products of float32 stay exact; `bf16` is the fast way",
    "train_on_split": "write `split` under the task, and see its page",
    **dict.fromkeys(
        ("loraplus_lr_ratio", "lorap_lr_ratio"),
        "LoRA+ is not among the variants; `lora.variant` names what is"),
    **dict.fromkeys(("lora_bias", "bias"), "biases stay as they are"),
    **dict.fromkeys(
        ("freeze_layers", "unfrozen_parameters"),
        "write `lora: {layers: [...]}` for the layers that get adapters"),
    "excess_length_strategy": "write `overlong: error` or drop",
}  # fmt: skip
"""Names of other programs that are no setting here, and what to write instead."""


def own_names(section: type[BaseModel]) -> dict[str, str]:
    """Every name that a section's fields answer to, and the field's own."""
    found: dict[str, str] = {}
    for name, field in section.model_fields.items():
        alias = field.validation_alias
        choices = alias.choices if isinstance(alias, AliasChoices) else ()
        found |= {str(choice): name for choice in (name, *choices)}
    return found


def spelled_out(train: Mapping[str, object]) -> dict[str, object]:
    """The settings of a `train:` mapping, other programs' names put in their place.

    Raises:
        ValueError: a value that the name does not take, or a setting that is given twice.
    """
    found = {key: value for key, value in train.items() if key not in ELSEWHERE}
    if isinstance(lora := found.get("lora"), Mapping):
        found["lora"] = dict(lora)
    said: dict[str, str] = {}
    for key in train:
        if key not in ELSEWHERE:
            continue
        own, value = _meant(key, train[key])
        if value is None:
            continue
        head, _, last = own.rpartition(".")
        inner = found.setdefault(head, {}) if head else found
        if not isinstance(inner, dict):
            raise ValueError(f"{key} belongs under `{head}:`, which is no mapping here")
        first = said.get(own) or (own if last in inner else "")
        if first and inner[last] != value:
            raise ValueError(f"{first} and {key} are one setting, and say different things")
        inner[last], said[own] = value, key
    return found


def _meant(key: str, value: object) -> tuple[str, object]:
    own, read = ELSEWHERE[key]
    try:
        if isinstance(value, list) and own not in LISTS:
            return own, [one for one in map(read, value) if one is not None]
        return own, read(value)
    except ValueError as error:
        raise ValueError(f"{key} {error}") from error
