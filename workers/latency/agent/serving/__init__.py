"""Serving a hub: lease its jobs, fetch their models, measure them, and send back every result.

- Nothing measured is lost: a result is kept in the agent's folder until the hub has accepted it.
- What a hub sends is checked field by field, and the content of a model goes to the runtime alone: it is never code.
- Only the monotonic clock decides anything; the time of day is for the log.
"""
