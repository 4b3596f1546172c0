"""The application's outbox: events as they are stored, and the worker's and the operator's view of them."""
