"""One module a protocol: its requests, its answers, its errors."""
