"""GRPO over the real agent: rollouts, advantages, and TRL's loss on token-exact samples. See `trainer.py` and docs/rl.md."""
