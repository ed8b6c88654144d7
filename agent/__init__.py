"""Thinking: policies, renderer, the LangGraph agent, and `VideoAgent`, the door."""
