"""What fits on which GPU, how fast, and how is it launched?

Answers without loading a weight: `shape` (the model's dimensions), `devices` (the GPUs), `states`
and `activations` (exact arithmetic and formulas), `trace` (the user's real code under fake tensors),
`strategies` (every way to place the work), `planner` (the choice and its reasons).
"""
