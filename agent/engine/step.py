"""One pass of the model over new tokens of many sequences, ragged, packed into a single row.

`Sequence_` is what the engine knows of a request under way: its context, the node that holds what is computed of it, and
how far. `Stepper.run` computes the next tokens of some sequences, any mix of long prefills and single decoded tokens, and
gives logits for those whose last token was among them. Nothing is committed before the pass has succeeded, so a failed pass
can be repeated with fewer sequences.
"""
