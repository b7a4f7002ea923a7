"""Text that someone else's model wrote: read from files (`written.py`), or asked of a server (`asking.py`) whose answers are kept (`answers.py`)."""
