"""What fits on which GPU, how fast, and how is it launched?

Answers without loading a weight: `shape` (the model's dimensions), `devices` (the GPUs), `states`
and `activations` (arithmetic), `trace` (the user's real code under fake tensors), `strategies`
(what each placement takes), `options` (all of them), `planner` (the choice), `changes` (what else).
"""
