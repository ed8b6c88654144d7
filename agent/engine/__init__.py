"""The engine: many requests at once through one model, nothing computed twice that is still held. See `scheduler.Engine`."""
