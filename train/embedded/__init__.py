"""How the embedded model is made from nothing: tower, encoder, language model. `python -m playhead.train` runs it all."""
