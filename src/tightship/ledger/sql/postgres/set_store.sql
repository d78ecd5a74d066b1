UPDATE store SET last = %s
