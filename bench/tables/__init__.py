"""The report's tables as plain data: numbers from rows, as text with their intervals, and why some stay blank."""
