"""Policies: a Video-LMM behind one call, `Policy.generate` of `core.policy`."""
